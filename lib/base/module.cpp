#include "lora/base/module.h"

namespace lora {

std::string_view to_string(LayerKind kind) {
  switch (kind) {
    case LayerKind::linear:
      return "linear";
    case LayerKind::conv1d:
      return "conv1d";
    case LayerKind::embedding:
      return "embedding";
    case LayerKind::norm:
      return "norm";
    case LayerKind::convolution:
      return "convolution";
    case LayerKind::attention:
      return "attention";
    case LayerKind::parameter:
      return "parameter";
    case LayerKind::other:
      break;
  }
  return "other";
}

}  // namespace lora
