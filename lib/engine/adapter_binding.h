// Puts adapters onto the layers of a model, or says why they do not fit.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "engine/linear.h"
#include "engine/model.h"
#include "engine/parameter.h"
#include "lora/adapter/adapter.h"

namespace lora::engine {

/// What a family exposes to adapters.
struct Sites {
  std::vector<Linear*> linears;
  std::deque<Parameter>* parameters = nullptr;
};

/// Adds one branch per adapter module and replaces the base parameters that adapters bring along.
/// With options.trainable every tensor of the one adapter lives in the returned flat buffers.
/// Throws Error(unsupported) naming module and kind for what no family computes (DoRA, embeddings,
/// initialisations that change the base), Error(incompatible) listing every module and parameter
/// that the base does not have or has in another shape, Error(usage) for several trainable
/// adapters.
FlatParameters bind_adapters(const ModelOptions& options, const Sites& sites);

/// Frozen parameters by base_name, then the adapters' tensors by peft_key.
std::vector<ParameterInfo> list_parameters(const ModelOptions& options,
                                           const std::deque<Parameter>& parameters);

}  // namespace lora::engine
