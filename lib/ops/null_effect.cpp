#include "ops/null_effect.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "lora/base/random.h"
#include "lora/ops/statistics.h"

namespace lora {
namespace {

Tensor random_factor(const Tensor& like, const std::string& name, int sample, double scale) {
  const CounterRandom random(static_cast<std::uint64_t>(sample), stream_of(name));
  std::vector<float> values(static_cast<std::size_t>(like.numel()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(scale * random.normal(i));
  return Tensor::from_f32(like.shape, values);
}

}  // namespace

Adapter random_twin(const Adapter& adapter, int sample) {
  Adapter twin = adapter;
  for (LoraModule& module : twin.modules) {
    const double wanted = update_statistics(module).norm;
    module.a = random_factor(module.a, module.module_path + ".null.a", sample, 1);
    module.b = random_factor(module.b, module.module_path + ".null.b", sample, 1);
    const double drawn = update_statistics(module).norm;
    const double scale = drawn > 0 ? wanted / drawn : 0;
    module.b = random_factor(module.b, module.module_path + ".null.b", sample, scale);
  }
  return twin;
}

NullEffect null_effect(Engine& engine, const ModelOptions& options, const TensorMap& inputs,
                       const OutputMatrix& base, const OutputMatrix& adapted, int samples) {
  NullEffect result;
  result.samples = samples;
  result.effect = difference(base, adapted).rms;
  double sum = 0;
  double squares = 0;
  for (int sample = 0; sample < samples; ++sample) {
    const Adapter twin = random_twin(*options.adapters.front(), sample);
    ModelOptions twin_options = options;
    twin_options.adapters = {&twin};
    const auto model = engine.load_model(twin_options);
    const double effect = difference(base, output_matrix(model->forward(inputs))).rms;
    sum += effect;
    squares += effect * effect;
    result.largest = std::max(result.largest, effect);
  }
  const double n = samples;
  result.mean = sum / n;
  if (samples > 1)
    result.std = std::sqrt(std::max(0.0, squares - n * result.mean * result.mean) / (n - 1));
  return result;
}

}  // namespace lora
