// The `inner` modules that a layer-streaming trainer puts around layers, told from real modules.
#pragma once

#include <optional>
#include <set>
#include <string>

namespace lora {

/// `path` without its first component `inner`, where the base has that module and not `path`
/// itself.
std::optional<std::string> without_inner(const std::string& path,
                                         const std::set<std::string>& base_paths);

}  // namespace lora
