// Which adapters a person means: paths, and quoted patterns such as "adapters/*".
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"

namespace lora::cli {

/// Every argument in order; one that is no path and holds `*`, `?` or `[` stands for the folders it
/// matches, sorted by bytes, or for all matches when none is a folder. Files that a pattern matches
/// beside folders are left out, which is said aloud. A pattern without a match stays as it is and
/// is reported like any path that is not there.
std::vector<std::string> expand_adapters(const std::vector<std::string>& arguments,
                                         Console& console);

/// The adapter directory whose weights PEFT would take from this very file; nullopt for any other
/// path.
std::optional<std::filesystem::path> directory_of_weights(const std::filesystem::path& file);

/// Throws Error(malformed) when `path` is an adapter where a merged checkpoint is expected. The
/// folder of a model with an adapter's configuration left in it is a checkpoint.
void require_no_adapter(const std::filesystem::path& path);

}  // namespace lora::cli
