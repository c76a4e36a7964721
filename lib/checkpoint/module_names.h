// What the name of a parameter says about its module.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace lora {

/// "a.b.weight" -> {"a.b", "weight"}; a name without a dot has an empty module path.
std::pair<std::string, std::string> split_parameter(const std::string& base_name);

/// True for module paths whose last name is that of an embedding table ("embed_tokens", "wte",
/// ...).
bool is_embedding_name(std::string_view module_path);

/// True for the module that get_output_embeddings() returns in the families of transformers.
bool is_output_head_name(std::string_view module_path);

/// True when the last name of the path is that of a normalisation layer ("ln_1", "LayerNorm").
bool is_norm_name(std::string_view module_path);

}  // namespace lora
