#include "ops/saved_embeddings.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace lora {
namespace {

// What PEFT looks for in target_modules.
constexpr std::array<std::string_view, 2> kAutoSaved{"embed_tokens", "lm_head"};
constexpr std::array<std::string_view, 7> kEmbeddings{
    "embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared"};

std::string_view leaf_of(std::string_view path) { return path.substr(path.rfind('.') + 1); }

}  // namespace

bool has_embedding_name(std::string_view module_path) {
  return std::find(kEmbeddings.begin(), kEmbeddings.end(), leaf_of(module_path)) !=
         kEmbeddings.end();
}

bool saves_embeddings(const AdapterConfig& config) {
  if (const auto* expression = std::get_if<std::string>(&config.target_modules))
    return std::any_of(kAutoSaved.begin(), kAutoSaved.end(), [&](std::string_view name) {
      return expression->find(name) != std::string::npos;
    });
  const auto* names = std::get_if<std::vector<std::string>>(&config.target_modules);
  return names != nullptr && std::any_of(names->begin(), names->end(), [](const auto& name) {
           return std::find(kAutoSaved.begin(), kAutoSaved.end(), leaf_of(name)) !=
                  kAutoSaved.end();
         });
}

}  // namespace lora
