#include "commands/adapter_paths.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "cli/units.h"

namespace lora::cli {
namespace {

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0)
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

std::vector<std::string> expand_adapters(const std::vector<std::string>& arguments,
                                         Console& console) {
  std::vector<std::string> adapters;
  std::error_code ignored;
  for (const std::string& argument : arguments) {
    const bool is_pattern = argument.find_first_of("*?[") != std::string::npos &&
                            !std::filesystem::exists(argument, ignored);
    std::vector<std::string> matches;
    if (is_pattern) matches = matches_of(argument);
    if (matches.empty()) {
      adapters.push_back(argument);
      continue;
    }
    const auto files = std::stable_partition(
        matches.begin(), matches.end(),
        [&](const std::string& path) { return std::filesystem::is_directory(path, ignored); });
    if (files != matches.begin() && files != matches.end()) {
      console.note("leaving out " +
                   plural(static_cast<std::uint64_t>(matches.end() - files), "file") + " that " +
                   argument + " matches beside folders");
      matches.erase(files, matches.end());
    }
    adapters.insert(adapters.end(), matches.begin(), matches.end());
  }
  return adapters;
}

}  // namespace lora::cli
