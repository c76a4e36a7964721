// Trainable tokens: which embedding a tensor of rows belongs to, and which rows they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/config.h"

namespace lora {

/// The indices that trainable_token_indices gives to the embedding at `module_path`; nullopt when
/// the configuration gives it none. A list means the input embedding, whatever its name; an object
/// names modules, by their whole path or an ending of it.
std::optional<std::vector<std::int64_t>> token_indices(const AdapterConfig& config,
                                                       const std::string& module_path);

}  // namespace lora
