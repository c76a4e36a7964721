// Which adapters a source of `save` holds: in folders as PEFT lays several out, and by the names
// inside the keys of one file.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/error.h"
#include "lora/ops/save.h"

namespace lora {

inline constexpr const char* kDefaultAdapter = "default";

struct SaveSource {
  std::filesystem::path path;
  /// Name of the adapter inside the keys of the file; empty where there is nothing to choose.
  std::optional<std::string> inside;
};

/// The one that the options choose. Throws Error(usage) that lists the adapters when there are
/// several and no choice, or none of the chosen name.
SaveSource choose_source(const SaveOptions& options);

/// All of them by name. Throws Error(malformed) when there is none, or two of one name.
std::map<std::string, SaveSource> all_sources(const std::filesystem::path& source);

/// What both of these throw; `names` are listed.
Error no_single_adapter(const std::filesystem::path& source, const std::vector<std::string>& names,
                        const std::optional<std::string>& wanted);

}  // namespace lora
