// The vocabulary that adapters and base checkpoints share: module paths and layer kinds.
//
// A module path is the dotted name of a module in the base model as its Python class would give it
// ("model.layers.0.self_attn.q_proj"), without the "base_model.model." prefix of adapter files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora {

/// What a module is, as far as LoRA cares.
enum class LayerKind {
  linear,       ///< weight [out, in]
  conv1d,       ///< GPT-2's Conv1D: weight [in, out]
  embedding,    ///< weight [rows, width]
  norm,         ///< LayerNorm / RMSNorm
  convolution,  ///< nn.Conv1d to Conv3d: weight [out, in / groups, kernel...]
  attention,    ///< nn.MultiheadAttention: in_proj_weight [3 width, width]
  parameter,    ///< bare nn.Parameter, 2-D or a stack of experts [E, ., .] (target_parameters)
  other,        ///< containers, activations, rotary embeddings
};

std::string_view to_string(LayerKind kind);

/// One module of a base model, listed in the order of Python's named_modules() (parents first).
struct ModuleInfo {
  std::string module_path;  ///< empty for the model itself
  std::string class_name;   ///< "Linear", "LlamaAttention", ...
  LayerKind kind = LayerKind::other;
  std::int64_t in_features =
      0;  ///< linear, conv1d: inputs; embedding: rows; convolution: in/groups
  std::int64_t out_features = 0;  ///< linear, conv1d, convolution: outputs; embedding, norm: width
  /// Shape of the weight as stored; empty for modules without one. Convolutions need the kernel.
  std::vector<std::int64_t> weight_shape;
  bool has_bias = false;
  bool is_output_head = false;  ///< the module get_output_embeddings() returns
  std::string arguments;        ///< text print(model) shows in parentheses, may be empty
};

using ModuleList = std::vector<ModuleInfo>;

}  // namespace lora
