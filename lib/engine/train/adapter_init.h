// The adapter a run starts from.
#pragma once

#include <cstdint>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

/// Completes a configuration as PEFT's get_peft_model would for this base: default targets of the
/// model_type, all-linear spelled out, base_model_name_or_path (transformers models), task_type
/// CAUSAL_LM for causal language models, SEQ_CLS with its heads in modules_to_save for classifiers,
/// peft_version, init_lora_weights. Throws Error(usage) listing the layers
/// when no targets are given and PEFT has no default and for settings that PEFT refuses together,
/// Error(unsupported) for LoRA variants that cannot be trained here.
AdapterConfig complete_config(AdapterConfig config, const Checkpoint& base,
                              const ModuleList& modules, const std::string& base_source,
                              const std::string& init);

/// Sets fan_in_fan_out as PEFT does when it wraps the targets: true behind GPT-2's Conv1D, false
/// behind a linear layer; the last target decides.
void set_weight_layout(AdapterConfig& config, const ResolvedTargets& targets);

/// New factors as TrainOptions::init says, drawn with CounterRandom from the seed and the tensor's
/// peft_key, so that neither order nor threads matter, or taken out of the base; copies of the
/// base's parameters for modules_to_save, trained biases and trainable tokens; DoRA magnitudes are
/// the norms of the base's weights, a lora_bias is zero. `compute` is that of the model to be
/// trained. Throws Error(unsupported) that names targets of other kinds (convolutions, fused
/// attention, bare parameters), Error(incompatible) when nothing would be trainable.
Adapter create_adapter(const AdapterConfig& config, const ResolvedTargets& targets,
                       const Checkpoint& base, const std::string& init, std::uint64_t seed,
                       Compute compute = Compute::base, BaseDtype base_dtype = BaseDtype::native);

/// Throws Error(incompatible) for keys without meaning and Error(unsupported) for an initialisation
/// that changed the base in a way its weights do not tell (CorDA and its like) or freezes a factor
/// (MiCA): such an adapter cannot simply be continued.
void check_continuable(const Adapter& adapter);

}  // namespace lora::engine
