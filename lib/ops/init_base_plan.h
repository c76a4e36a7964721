// What init-base is going to write, before anything is written.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lora/checkpoint/checkpoint.h"
#include "lora/format/safetensors.h"
#include "lora/ops/init_base.h"

namespace lora {

struct BasePlan {
  std::string model_type;
  std::string config_text;            ///< of config.json
  std::vector<TensorSource> tensors;  ///< in the order for shards
  std::map<std::string, std::string> aliases;
  std::vector<std::filesystem::path> carried;              ///< files copied under their own names
  std::vector<std::pair<std::string, std::string>> texts;  ///< files written, by name
  std::vector<std::string> notes;
};

/// Random weights of a preset or an architecture.
BasePlan plan_fresh(const InitBaseOptions& options);

/// The weights of options.from.
BasePlan plan_import(const InitBaseOptions& options);

/// The same where options.from is a GGUF file: blocks are widened, names and rows put back as
/// transformers has them, the tokenizer rebuilt.
BasePlan plan_gguf(const InitBaseOptions& options);

/// `config_text` with its dtype field, in the dialect it uses, naming `dtype` ("bfloat16"); all
/// other bytes as they were. The text must be a JSON object.
std::string with_config_dtype(const std::string& config_text, const std::string& dtype);

/// `config_text` with one member of its outermost object set to `value` (JSON text); all other
/// bytes as they were.
std::string with_config_member(const std::string& config_text, const std::string& key,
                               const std::string& value);

/// config.json of `source` as text, with the dtype field of `dtype` where one is given. The
/// checkpoint must have a configuration; `is_replaced` writes that of an mlp anew.
std::string config_text_of(const Checkpoint& source, std::optional<DType> dtype, bool is_replaced);

/// The files beside the weights that belong to the model: tokenizer, chat template, generation
/// settings.
std::vector<std::filesystem::path> carried_files(const std::filesystem::path& directory);

/// Throws Error(unsupported) when weights are quantised; `doing` is "import" or the like.
void refuse_quantised(const Checkpoint& source, const std::string& doing);

}  // namespace lora
