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

/// Adds one branch per adapter module, replaces the base parameters that adapters bring along, and
/// patches the rows of trainable tokens (also in a head tied to the embedding, as PEFT does). With
/// options.trainable every tensor that PEFT would train lives in the returned flat buffers.
///
/// Throws Error(unsupported) naming what no family computes (convolutions, expert parameters,
/// initialisations that change the base), Error(incompatible) listing every module and parameter
/// that the base does not have or has in another shape, Error(usage) for several trainable
/// adapters.
FlatParameters bind_adapters(const ModelOptions& options, const Sites& sites, Gradients gradients);

/// Frozen parameters by base_name, then the adapters' tensors by peft_key; those in `trainable`
/// are marked.
std::vector<ParameterInfo> list_parameters(const ModelOptions& options,
                                           const FlatParameters& trainable,
                                           const std::deque<Parameter>& parameters);

}  // namespace lora::engine
