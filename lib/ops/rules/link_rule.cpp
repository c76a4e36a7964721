#include <system_error>

#include "lora/base/error.h"
#include "lora/format/json.h"
#include "ops/rules/folder_rules.h"

namespace lora::rules {
namespace {

namespace fs = std::filesystem;

bool is_inside(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

// REPO/snapshots/COMMIT/... -> REPO, whose files are links to REPO/blobs.
fs::path cache_repository(const fs::path& folder) {
  for (fs::path at = folder; at.has_relative_path(); at = at.parent_path())
    if (at.parent_path().filename() == "snapshots" &&
        at.parent_path().parent_path().filename().string().starts_with("models--"))
      return at.parent_path().parent_path();
  return {};
}

void check_link(const Folder::Entry& entry, const fs::path& folder, Report& report) {
  std::error_code failed;
  const fs::path target = fs::canonical(entry.path, failed);
  const Report::About about{
      .tensor = {}, .module = {}, .hint = {}, .severity = {}, .file = entry.path.string()};
  if (failed) {
    report.add(entry.relative.string() + " is a link to nothing", about);
    return;
  }
  if (is_inside(target, folder)) return;
  const fs::path repository = cache_repository(folder);
  if (!repository.empty() && is_inside(target, repository / "blobs")) return;
  report.add(entry.relative.string() + " is a link to " + target.string() +
                 ", outside the adapter's folder",
             about);
}

// A loader joins these names to the folder.
void check_index(const Folder::Entry& entry, Report& report) {
  const auto text = read_text(entry);
  if (!text) return;
  std::vector<std::string> leaving;
  try {
    const Json document = parse_json(*text, entry.relative.string());
    const Json* map = document.find("weight_map");
    if (map == nullptr || !map->is_object()) return;
    for (const auto& [tensor, file] : *map->as_object()) {
      if (!file.is_string()) continue;
      const fs::path name(*file.as_string());
      const fs::path normal = name.lexically_normal();
      if (name.is_absolute() || (!normal.empty() && *normal.begin() == ".."))
        leaving.push_back(tensor + " in " + name.string());
    }
  } catch (const Error&) {
    return;
  }
  if (leaving.empty()) return;
  report.add(entry.relative.string() + " names files outside the folder: " + report.list(leaving),
             {.tensor = {},
              .module = {},
              .hint = {},
              .severity = Severity::error,
              .file = entry.path.string()});
}

}  // namespace

void check_links(const Folder& folder, Report& report) {
  std::error_code failed;
  const fs::path canonical = fs::canonical(folder.path.empty() ? "." : folder.path, failed);
  for (const Folder::Entry& entry : folder.entries) {
    if (entry.is_link && !failed) check_link(entry, canonical, report);
    if (entry.relative.string().ends_with(".index.json")) check_index(entry, report);
  }
}

}  // namespace lora::rules
