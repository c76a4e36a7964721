// Puts adapters onto the layers of a model, or says why they do not fit.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "engine/lora_site.h"
#include "engine/model.h"
#include "engine/parameter.h"
#include "lora/adapter/adapter.h"

namespace lora::engine {

/// What a family exposes to adapters.
struct Sites {
  std::vector<LoraSite*> layers;
  std::deque<Parameter>* parameters = nullptr;
};

/// How the gradients of trainable tensors come about.
enum class Gradients {
  manual,    ///< the family adds to them
  autograd,  ///< the tensors are leaves of LibTorch's graph
};

/// Adds one branch per adapter module, replaces parameters that adapters bring along or (PiSSA,
/// OLoRA) took their first factors out of, and patches the rows of trainable tokens (also in a tied
/// head). With options.trainable every tensor that PEFT would train is in the returned buffers.
///
/// Throws Error(unsupported) naming what no family computes (convolutions, expert parameters,
/// changes of the base that its weights do not tell), Error(incompatible) listing every module and
/// parameter that the base does not have or has in another shape, Error(usage) for several
/// trainable adapters.
FlatParameters bind_adapters(const ModelOptions& options, const Sites& sites, Gradients gradients);

/// Frozen parameters by base_name, then the adapters' tensors by peft_key; those in `trainable`
/// are marked.
std::vector<ParameterInfo> list_parameters(const ModelOptions& options,
                                           const FlatParameters& trainable,
                                           const std::deque<Parameter>& parameters);

}  // namespace lora::engine
