#include <algorithm>
#include <array>

#include "lora/base/error.h"
#include "lora/format/json.h"
#include "lora/ops/finding_filter.h"

namespace lora {
namespace {

constexpr const char* kSchema = "lora.verify_baseline/2";
constexpr const char* kEarlierSchema = "lora.verify_baseline/1";

Error malformed(const std::string& file, const std::string& what) {
  return Error(ErrorKind::malformed, "cannot read baseline " + file + ": " + what).in_file(file);
}

void require_members(const Json& value, std::initializer_list<std::string_view> names,
                     const std::string& file, const std::string& where) {
  const JsonObject* object = value.as_object();
  if (object == nullptr)
    throw malformed(file, where + " is " + std::string(value.type_name()) + ", expected an object");
  for (const std::string_view name : names)
    if (object->find(name) == nullptr)
      throw malformed(file, where + " has no member \"" + std::string(name) + "\"");
  for (const auto& [name, member] : *object)
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw malformed(file, where + " has the unknown member \"" + name + "\"");
}

FindingIdentity read_entry(const Json& value, const std::string& file, const std::string& where) {
  require_members(value, {"rule", "adapter", "file", "module", "tensor", "message", "unlisted"},
                  file, where);
  const auto text = [&](const char* name, bool may_be_null) {
    const Json& member = *value.find(name);
    if (may_be_null && member.is_null()) return std::string();
    if (!member.is_string())
      throw malformed(file, where + ": " + name + " is " + std::string(member.type_name()) +
                                ", expected a string");
    return *member.as_string();
  };
  FindingIdentity entry{text("rule", false),   text("adapter", false), text("file", true),
                        text("module", true),  text("tensor", true),   text("message", false),
                        text("unlisted", true)};
  const std::vector<std::string> rules = rules_of_selector(entry.rule);
  if (rules.size() != 1 || rules.front() != entry.rule)
    throw malformed(file, where + ": \"" + entry.rule + "\" is no rule of this version");
  return entry;
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

void require_schema(const Json& document, const std::string& file) {
  const Json* schema = document.find("schema");
  if (schema == nullptr || *schema == Json(kSchema)) return;
  if (*schema == Json(kEarlierSchema))
    throw Error(ErrorKind::unsupported,
                "cannot read baseline " + file + ": its schema is " + dump_json(*schema) +
                    ", whose entries do not say which adapter and which numbers they accept, "
                    "expected \"" +
                    kSchema + "\"")
        .in_file(file)
        .with_hint(
            "look at the findings again and write it anew: lora verify ADAPTER... "
            "--write-baseline " +
            file + " --force");
  throw Error(ErrorKind::unsupported, "cannot read baseline " + file + ": its schema is " +
                                          dump_json(*schema) + ", expected \"" + kSchema + "\"")
      .in_file(file);
}

}  // namespace

std::string dump_baseline(const FindingBaseline& baseline) {
  JsonArray accepted;
  for (const FindingIdentity& entry : baseline.accepted)
    accepted.push_back(JsonObject{{"rule", entry.rule},
                                  {"adapter", entry.adapter},
                                  {"file", text_or_null(entry.file)},
                                  {"module", text_or_null(entry.module)},
                                  {"tensor", text_or_null(entry.tensor)},
                                  {"message", entry.message},
                                  {"unlisted", text_or_null(entry.unlisted)}});
  return dump_json(JsonObject{{"schema", kSchema}, {"accepted", std::move(accepted)}}) + "\n";
}

FindingBaseline read_baseline(const std::filesystem::path& path) {
  const std::string file = path.string();
  const Json document = read_json_file(path);
  require_schema(document, file);
  require_members(document, {"schema", "accepted"}, file, "it");
  const JsonArray* entries = document.find("accepted")->as_array();
  if (entries == nullptr) throw malformed(file, "accepted is no array");
  FindingBaseline baseline{path.parent_path(), {}};
  for (std::size_t i = 0; i < entries->size(); ++i)
    baseline.accepted.push_back(
        read_entry((*entries)[i], file, "entry " + std::to_string(i + 1) + " of accepted"));
  // Positions in a baseline name its entries; a file edited by hand need not be sorted.
  return merge_baselines(baseline, {});
}

}  // namespace lora
