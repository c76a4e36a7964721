// Base weights from any source, as named tensors.
//
// Ties follow transformers 5.23: a configuration that ties the output head makes its name an alias
// of the embedding's, whether the file holds the head or not, and also when it holds only the head.
// A head whose bytes differ from the embedding's stays a tensor of its own, the tie is then off
// (config->tie_word_embeddings false) and a note says so. Names that share one storage completely
// (torch files) are one tensor under the tied-to name, else under the bytewise smallest one; the
// others are aliases. Aliases recorded in a base.lock.json beside the weights are restored.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/mapped_file.h"
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
  std::string not_inferred_because;  ///< why a source without config.json has no config either
  std::filesystem::path directory;   ///< folder with config.json, tokenizer or lock; empty: none
  std::vector<std::string> notes;    ///< what a person should be told: one sentence each
  /// Mappings of the safetensors files, so that streaming passes can drop pages behind them.
  std::vector<std::shared_ptr<const MappedFile>> mappings;

  /// Follows aliases; null when there is no such tensor.
  const Tensor* find(const std::string& base_name) const;
};

struct OpenCheckpointOptions {
  std::optional<std::string> activation;        ///< for an inferred mlp; default relu
  std::optional<std::string> final_activation;  ///< for an inferred mlp; default none
  bool config_required = false;  ///< throw when neither config.json nor inference gives one
};

/// Accepts every Base source of docs/cli.md: a directory with config.json or, for a bare state
/// dict, base.lock.json (model.safetensors, sharded, pytorch_model.bin, or one other
/// .safetensors/.pth/.pt/.bin file), a single file (whose
/// folder's config.json counts when that folder as a source would mean this very file), a Hugging
/// Face id in the local cache (`hf_cache` directories are searched in order; never the network).
/// Every tensor of every shard is accounted for. Throws Error(not_found | malformed | unsupported).
Checkpoint open_checkpoint(const std::string& source, const OpenCheckpointOptions& options = {},
                           const std::vector<std::filesystem::path>& hf_cache = {});

/// The modules of the model in the order of Python's named_modules(): exact class names for
/// families this program knows (llama and mistral: the tree of the ...ForCausalLM class; others:
/// language model, sequence or token classifier, as the architecture says), otherwise deduced from
/// parameter names and shapes: only modules that own parameters and their parents, in natural
/// order. Shapes of an mlp come from its tensors.
ModuleList list_modules(const Checkpoint& checkpoint);

}  // namespace lora
