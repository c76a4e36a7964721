// Names of modules as findings need them: taken apart, and many of them in few words.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/adapter.h"

namespace lora::rules {

/// Names that differ only in their first index become one: "model.layers.0-15,20.q_proj". In the
/// order of their first occurrence.
std::vector<std::string> group_layers(const std::vector<std::string>& names);

/// "0-3,7" of sorted indices.
std::string ranges(const std::vector<std::int64_t>& indices);

/// The first component that is an index; -1 without one.
std::int64_t layer_of(const std::string& path);

/// The name that rank_pattern and alpha_pattern are matched against: the path that PEFT injected
/// at, which is that of the attention for its output projection and `module.parameter` for a bare
/// parameter.
std::string pattern_path(const LoraModule& module);

/// Paths of all modules but the model itself.
std::set<std::string> paths_of(const ModuleList& modules);

inline constexpr std::string_view kPeftPrefix = "base_model.model.";

/// What stands before base_model.model. inside a path: "thinker." of
/// "thinker.base_model.model.x", "base_model.model." where it is doubled, empty without it.
std::string prefix_before(const std::string& module_path);

/// "1 module", "3 modules".
std::string counted(std::size_t count, std::string_view noun);

}  // namespace lora::rules
