#include "engine/probe.h"

#include "lora/checkpoint/probe_inputs.h"

namespace lora::engine {

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
  Probe probe;
  probe.inputs = probe_inputs(*options.base);
  probe.compute = compute_name(options);
  model.enable_adapters(false);
  probe.base = record_outputs(output_matrix(model.forward(probe.inputs)));
  model.enable_adapters(true);
  probe.adapted = record_outputs(output_matrix(model.forward(probe.inputs)));
  return probe;
}

}  // namespace lora::engine
