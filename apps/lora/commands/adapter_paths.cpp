#include "commands/adapter_paths.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "cli/units.h"
#include "lora/adapter/adapter.h"
#include "lora/base/error.h"

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

bool has_file(const std::filesystem::path& directory, const char* name) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(directory / name, ignored);
}

}  // namespace

std::optional<std::filesystem::path> directory_of_weights(const std::filesystem::path& file) {
  const std::filesystem::path directory =
      file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const std::filesystem::path name = file.filename();
  const bool is_taken = name == kAdapterWeightsName ||
                        (name == kAdapterPickleName && !has_file(directory, kAdapterWeightsName));
  if (!is_taken || !has_file(directory, name.c_str()) || !is_adapter_directory(directory))
    return std::nullopt;
  return directory;
}

void require_no_adapter(const std::filesystem::path& path) {
  const bool has_weights =
      has_file(path, kAdapterWeightsName) || has_file(path, kAdapterPickleName);
  const bool is_adapter =
      is_adapter_directory(path) && has_weights && !has_file(path, "config.json");
  if (!is_adapter && !directory_of_weights(path)) return;
  throw Error(ErrorKind::malformed, "cannot use " + path.string() +
                                        " as the merged checkpoint: found an adapter, expected a "
                                        "whole model")
      .in_file(path.string())
      .with_hint("give the folder that the model was saved in after merging");
}

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
