// Rules about the folder of an adapter rather than its tensors. They also speak about an adapter
// that cannot be read: what makes a file unreadable may be what makes it dangerous.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ops/rules/rule.h"

namespace lora::rules {

/// Files of the folder, links not followed; of a weights file given alone that file.
struct Folder {
  struct Entry {
    std::filesystem::path path;
    std::filesystem::path relative;  ///< to the folder, for messages
    std::uint64_t bytes = 0;         ///< of a regular file, links followed; otherwise 0
    bool is_file = false;            ///< a regular file, links followed
    bool is_link = false;
  };
  std::filesystem::path path;   ///< the folder, as given
  std::vector<Entry> entries;   ///< sorted by path
  bool is_single_file = false;  ///< a weights file given alone
  bool is_cut = false;          ///< more entries than are looked at
};
/// Looks at most three levels deep and at 10,000 entries.
Folder list_folder(const std::filesystem::path& adapter);

/// Text of a file of at most 4 MiB; nullopt when it is larger or cannot be read.
std::optional<std::string> read_text(const Folder::Entry& entry);

/// Runs LV801 to LV805 and returns what was looked at, as the line of the check "security".
std::string check_folder(const std::filesystem::path& adapter, Report& report);

/// One rule each; `report` has begun it.
void check_pickles(const Folder& folder, Report& report);
void check_links(const Folder& folder, Report& report);
void check_remote_code(const Folder& folder, Report& report);
void check_chat_templates(const Folder& folder, Report& report);
void check_sizes(const Folder& folder, Report& report);

}  // namespace lora::rules
