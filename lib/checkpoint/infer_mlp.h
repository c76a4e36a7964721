// Recognising a plain chain of Linear layers from names and shapes alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/base/tensor.h"
#include "lora/checkpoint/model_config.h"

namespace lora {

struct InferredMlp {
  std::optional<MlpConfig> config;  ///< activations are the defaults
  std::string reason;               ///< why not, when config is absent
};

/// Every tensor must be NAME.weight [out, in] or its NAME.bias [out], and the layers must chain:
/// out of one is in of the next. The order comes, in this order of trust, from numbered names
/// ("fc1", "net.2"), from `file_order` (names as a state dict lists them; empty when the container
/// keeps no order), from the shapes when only one order chains. Anything ambiguous is refused.
InferredMlp infer_mlp(const TensorMap& tensors, const std::vector<std::string>& file_order);

}  // namespace lora
