#include "engine/probe.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/error.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kTokenRows = 2;
constexpr std::int64_t kTokenColumns = 16;
constexpr std::int64_t kFeatureRows = 4;
constexpr const char* kStream = "lora.probe/1";

const Tensor& output_of(const TensorMap& outputs) {
  for (const char* name : {"logits", "output"})
    if (const auto found = outputs.find(name); found != outputs.end()) return found->second;
  throw Error(ErrorKind::internal, "the model returned neither logits nor output");
}

// [rows, columns, width] -> [rows, width]; an mlp's [rows, width] stays.
Tensor last_position(const Tensor& output) {
  if (output.shape.size() != 3) return output;
  const std::vector<float> values = output.to_f32();
  const auto columns = static_cast<std::size_t>(output.shape[1]);
  const auto width = static_cast<std::size_t>(output.shape[2]);
  std::vector<float> last;
  for (std::size_t row = 0; row < static_cast<std::size_t>(output.shape[0]); ++row) {
    const auto at = static_cast<std::ptrdiff_t>((row * columns + columns - 1) * width);
    last.insert(last.end(), values.begin() + at,
                values.begin() + at + static_cast<std::ptrdiff_t>(width));
  }
  return Tensor::from_f32({output.shape[0], output.shape[2]}, last);
}

}  // namespace

TensorMap probe_inputs(const ModelConfig& config) {
  const CounterRandom random(0, stream_of(kStream));
  if (config.decoder) {
    const std::int64_t columns =
        std::max<std::int64_t>(1, std::min(kTokenColumns, config.decoder->max_position_embeddings));
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < kTokenRows * columns; ++i)
      ids.push_back(static_cast<std::int64_t>(random.below(
          static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(config.decoder->vocab_size))));
    return {{"input_ids", Tensor::from_i64({kTokenRows, columns}, ids)}};
  }
  if (config.mlp) {
    const std::int64_t features = config.mlp->hidden_sizes.front();
    std::vector<float> values;
    for (std::int64_t i = 0; i < kFeatureRows * features; ++i)
      values.push_back(static_cast<float>(random.normal(static_cast<std::uint64_t>(i))));
    return {{"x", Tensor::from_f32({kFeatureRows, features}, values)}};
  }
  throw Error(ErrorKind::unsupported, "cannot record outputs: model type '" + config.model_type +
                                          "' has no forward pass here");
}

std::string compute_name(const ModelOptions& options) {
  if (options.compute == Compute::f32) return "f32";
  if (options.compute == Compute::bf16) return "bf16";
  // A base counts as bf16 when most of its numbers are.
  std::int64_t half = 0;
  std::int64_t all = 0;
  for (const auto& [name, tensor] : options.base->tensors) {
    all += tensor.numel();
    if (tensor.dtype == DType::bf16) half += tensor.numel();
  }
  return 2 * half > all ? "bf16" : "f32";
}

Probe probe_model(EngineModel& model, const ModelOptions& options) {
  if (!options.base->config)
    throw Error(ErrorKind::unsupported, "cannot record outputs: the base has no configuration")
        .in_file(options.base->path.string());
  Probe probe;
  probe.inputs = probe_inputs(*options.base->config);
  probe.compute = compute_name(options);
  model.enable_adapters(false);
  probe.base = last_position(output_of(model.forward(probe.inputs)));
  model.enable_adapters(true);
  probe.adapted = last_position(output_of(model.forward(probe.inputs)));
  return probe;
}

}  // namespace lora::engine
