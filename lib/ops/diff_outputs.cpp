#include "lora/ops/diff_outputs.h"

#include <memory>

#include "lora/checkpoint/probe_inputs.h"
#include "lora/engine.h"

namespace lora {
namespace {

struct SideOutputs {
  OutputMatrix outputs;
  std::optional<OutputDifference> effect;
};

SideOutputs run(Engine& engine, const ModelSide& side, const TensorMap& inputs) {
  ModelOptions options;
  options.base = side.base;
  options.compute = Compute::f32;
  if (side.adapter != nullptr) options.adapters = {side.adapter};
  const auto model = engine.load_model(options);
  SideOutputs result;
  result.outputs = output_matrix(model->forward(inputs));
  if (side.adapter != nullptr) {
    model->enable_adapters(false);
    result.effect = difference(output_matrix(model->forward(inputs)), result.outputs);
  }
  return result;
}

}  // namespace

OutputDiff diff_outputs(Engine& engine, const ModelSide& a, const ModelSide& b) {
  const TensorMap inputs = probe_inputs(*a.base);
  const SideOutputs left = run(engine, a, inputs);
  const SideOutputs right = run(engine, b, inputs);
  return {difference(left.outputs, right.outputs), left.effect, right.effect};
}

}  // namespace lora
