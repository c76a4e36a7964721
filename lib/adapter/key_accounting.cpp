#include "adapter/key_accounting.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace lora {
namespace {

// save_embedding_layers asks the model for its embeddings; these are their names in transformers.
constexpr std::array<std::string_view, 7> kEmbeddingLeaves{
    "embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared"};

bool is_embedding(const ParsedKey& key) {
  const std::string_view path = key.module_path;
  const std::string_view leaf = path.substr(path.rfind('.') + 1);
  return std::find(kEmbeddingLeaves.begin(), kEmbeddingLeaves.end(), leaf) !=
         kEmbeddingLeaves.end();
}

// An entry names the module itself or one it is inside of; PEFT matches any ending.
bool is_part_of(const std::string& module_path, const std::vector<std::string>& entries) {
  for (std::size_t end = module_path.size();; end = module_path.rfind('.', end - 1)) {
    if (end == std::string::npos || end == 0) return false;
    const std::string_view path = std::string_view(module_path).substr(0, end);
    if (std::any_of(entries.begin(), entries.end(),
                    [&](const std::string& entry) { return path.ends_with(entry); }))
      return true;
  }
}

}  // namespace

bool is_explained(const ParsedKey& key, const AdapterConfig& config,
                  const std::set<std::string>& lora_paths) {
  const bool is_bias = key.parameter == "bias" || key.parameter.ends_with(".bias");
  if (is_bias && config.bias == BiasMode::all) return true;
  // Without base_layer: files from before LoRA layers wrapped the base layer.
  if (is_bias && config.bias == BiasMode::lora_only && lora_paths.contains(key.module_path))
    return true;
  if (key.role == KeyRole::original) return key.parameter.starts_with("token_adapter.");
  if (key.parameter == "weight" && is_embedding(key)) return true;
  return key.role == KeyRole::saved && is_part_of(key.module_path, config.modules_to_save);
}

}  // namespace lora
