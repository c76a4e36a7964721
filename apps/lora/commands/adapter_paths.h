// Which adapters a person means: paths, and quoted patterns such as "adapters/*".
#pragma once

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

}  // namespace lora::cli
