// The tensors of one LoRA layer before its first step.
#pragma once

#include <cstdint>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/base/module.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

/// What new tensors depend on apart from the configuration.
struct NewLayers {
  const Checkpoint& base;
  std::string init;  ///< TrainOptions::init
  std::uint64_t seed = 0;
  Compute compute = Compute::base;  ///< of the model that will be trained
  BaseDtype base_dtype = BaseDtype::native;
};

/// Adds A and B, a lora_bias and a DoRA magnitude of `module` under their peft_keys. The magnitude
/// is the norm of what the layer multiplies with at first, as in PEFT. Throws Error(usage) for a
/// rank that cannot be, Error(unsupported) for what PEFT refuses on this kind of layer.
void add_new_layer(TensorMap& tensors, const AdapterConfig& config, const ModuleInfo& module,
                   const NewLayers& settings);

/// The peft_key of a tensor of a module; `parameter` where the role does not say it.
std::string key_of(KeyRole role, const std::string& module_path, const std::string& parameter = "");

/// The name in TrainOptions::init for one of default, gaussian, zero, orthogonal, pissa,
/// pissa_niter_N and olora as init_lora_weights has it; nullopt for anything else. `zero` has no
/// name in PEFT: once trained, how the factors began does not matter to a reader.
std::optional<Json> init_lora_weights_of(const std::string& init);

}  // namespace lora::engine
