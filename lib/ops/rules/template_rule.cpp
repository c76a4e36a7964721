#include <system_error>

#include "lora/base/error.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/format/json.h"
#include "ops/rules/folder_rules.h"
#include "ops/rules/template_suspicions.h"

namespace lora::rules {
namespace {

struct NamedTemplate {
  std::string name;  ///< "default" where a list names them
  std::string text;
};

// A string, or a list of {"name", "template"}.
void add_templates(const Json* value, std::vector<NamedTemplate>& templates) {
  if (value == nullptr) return;
  if (value->is_string()) templates.push_back({"", *value->as_string()});
  if (!value->is_array()) return;
  for (const Json& item : *value->as_array()) {
    const Json* name = item.find("name");
    const Json* text = item.find("template");
    if (text != nullptr && text->is_string())
      templates.push_back(
          {name != nullptr && name->is_string() ? *name->as_string() : "", *text->as_string()});
  }
}

bool holds_templates(const std::string& name) {
  return name.ends_with(".jinja") || name.ends_with(".jinja2") || name == kTokenizerConfigName ||
         name == "chat_template.json" || name == "processor_config.json" ||
         name == "preprocessor_config.json";
}

std::vector<NamedTemplate> templates_of(const Folder::Entry& entry, const std::string& text) {
  std::vector<NamedTemplate> templates;
  if (entry.path.extension() != ".json") return {{"", text}};
  try {
    const Json document = parse_json(text, entry.relative.string());
    add_templates(document.find("chat_template"), templates);
  } catch (const Error&) {
    return {};
  }
  return templates;
}

}  // namespace

void check_chat_templates(const Folder& folder, Report& report) {
  for (const Folder::Entry& entry : folder.entries) {
    if (!entry.is_file || !holds_templates(entry.relative.filename().string())) continue;
    const auto add = [&](std::string message, std::optional<Severity> severity) {
      report.add(std::move(message),
                 {.tensor = {},
                  .module = {},
                  .hint = severity == Severity::note ? "check that it belongs there" : "",
                  .severity = severity,
                  .file = entry.path.string()});
    };
    const auto text = read_text(entry);
    if (!text) {
      add(entry.relative.string() + " is too large to be examined (" + std::to_string(entry.bytes) +
              " bytes)",
          Severity::warning);
      continue;
    }
    for (const NamedTemplate& candidate : templates_of(entry, *text)) {
      const TemplateSuspicions found = examine_template(candidate.text);
      const std::string name =
          entry.relative.string() + (candidate.name.empty() ? "" : " (" + candidate.name + ")");
      if (!found.dangerous.empty())
        add("the chat template " + name + " has " + report.list(found.dangerous, 10), std::nullopt);
      if (!found.addresses.empty())
        add("the chat template " + name + " has web addresses: " + report.list(found.addresses),
            Severity::note);
    }
  }
}

}  // namespace lora::rules
