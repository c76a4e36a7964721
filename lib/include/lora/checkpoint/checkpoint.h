// Base weights from any source, as named tensors.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/module.h"
#include "lora/base/tensor.h"
#include "lora/checkpoint/model_config.h"

namespace lora {

/// A base checkpoint: config, tensors under their base_names, aliases. Tensors are views of mapped
/// files wherever the stored bytes are contiguous.
struct Checkpoint {
  std::filesystem::path path;                ///< what was opened
  std::vector<std::filesystem::path> files;  ///< weight files read
  std::optional<ModelConfig> config;         ///< absent: a bare state dict without inferable form
  TensorMap tensors;                         ///< by base_name; aliases are not in here
  /// base_name -> the name in `tensors` that holds its bytes: names sharing storage, and the output
  /// head of a configuration that ties it.
  std::map<std::string, std::string> aliases;
  bool is_inferred = false;  ///< config was inferred from the tensors (plain chain of Linear)

  /// Follows aliases; null when there is no such tensor.
  const Tensor* find(const std::string& base_name) const;
};

struct OpenCheckpointOptions {
  std::optional<std::string> activation;        ///< for an inferred mlp; default relu
  std::optional<std::string> final_activation;  ///< for an inferred mlp; default none
  bool config_required = false;  ///< throw when neither config.json nor inference gives one
};

/// Accepts every Base source of docs/cli.md: a directory (safetensors, sharded, pytorch_model.bin),
/// a single file, a Hugging Face id in the local cache (`hf_cache` directories are searched in order;
/// never the network). Throws Error(not_found | malformed | unsupported).
Checkpoint open_checkpoint(const std::string& source, const OpenCheckpointOptions& options = {},
                           const std::vector<std::filesystem::path>& hf_cache = {});

/// The modules of the model in the order of Python's named_modules(): exact class names for families
/// this program knows, otherwise deduced from parameter names and shapes.
ModuleList list_modules(const Checkpoint& checkpoint);

}  // namespace lora
