#include "checkpoint/module_names.h"

#include <algorithm>
#include <array>

namespace lora {
namespace {

std::string_view last_name(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::pair<std::string, std::string> split_parameter(const std::string& base_name) {
  const auto dot = base_name.rfind('.');
  if (dot == std::string::npos) return {"", base_name};
  return {base_name.substr(0, dot), base_name.substr(dot + 1)};
}

bool is_embedding_name(std::string_view module_path) {
  constexpr std::array<std::string_view, 12> kNames{"embed_tokens",
                                                    "wte",
                                                    "wpe",
                                                    "word_embeddings",
                                                    "shared",
                                                    "position_embeddings",
                                                    "token_type_embeddings",
                                                    "embed_positions",
                                                    "relative_attention_bias",
                                                    "embeddings",
                                                    "tok_embeddings",
                                                    "embedding"};
  const std::string_view name = last_name(module_path);
  return is_one_of(kNames, name) || name.ends_with("_embedding") || name.ends_with("_embeddings");
}

bool is_output_head_name(std::string_view module_path) {
  constexpr std::array<std::string_view, 5> kPaths{
      "lm_head", "embed_out", "cls.predictions.decoder", "lm_head.decoder", "output_layer"};
  return is_one_of(kPaths, module_path);
}

bool is_norm_name(std::string_view module_path) {
  std::string name(last_name(module_path));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return name.find("norm") != std::string::npos || name.starts_with("ln_") || name == "ln";
}

}  // namespace lora
