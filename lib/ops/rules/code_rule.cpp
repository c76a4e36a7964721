#include "lora/base/error.h"
#include "lora/format/json.h"
#include "ops/rules/folder_rules.h"

namespace lora::rules {
namespace {

// Paths of members that make a loader import code: "auto_map", "text_config.auto_map".
void find_code(const Json& value, const std::string& path, int depth,
               std::vector<std::string>& found) {
  const JsonObject* object = value.as_object();
  if (object == nullptr || depth > 4) return;
  for (const auto& [name, member] : *object) {
    const std::string where = path.empty() ? name : path + "." + name;
    const bool is_set = !member.is_null() && member != Json(false);
    if ((name == "auto_map" || name == "custom_code" || name == "trust_remote_code") && is_set) {
      found.push_back(where);
    } else {
      find_code(member, where, depth + 1, found);
    }
  }
}

void check_json(const Folder::Entry& entry, Report& report) {
  const auto text = read_text(entry);
  if (!text) return;
  std::vector<std::string> found;
  try {
    find_code(parse_json(*text, entry.relative.string()), "", 0, found);
  } catch (const Error&) {
    return;
  }
  if (found.empty()) return;
  report.add(
      entry.relative.string() + " asks for code from outside the libraries: " + report.list(found),
      {.tensor = {}, .module = {}, .hint = {}, .severity = {}, .file = entry.path.string()});
}

bool is_configuration(const std::string& name) {
  return name.ends_with("config.json") || name == "processor.json" ||
         name == "additional_config.json" || name == "run.json";
}

}  // namespace

void check_remote_code(const Folder& folder, Report& report) {
  std::vector<std::string> scripts;
  for (const Folder::Entry& entry : folder.entries) {
    if (is_configuration(entry.relative.filename().string())) check_json(entry, report);
    const std::string ending = entry.path.extension().string();
    if ((entry.is_file || entry.is_link) &&
        (ending == ".py" || ending == ".pyc" || ending == ".so"))
      scripts.push_back(entry.relative.string());
  }
  if (scripts.empty()) return;
  report.add("the folder holds code: " + report.list(scripts),
             {.tensor = {},
              .module = {},
              .hint = {},
              .severity = {},
              .file = (folder.path / scripts.front()).string()});
}

}  // namespace lora::rules
