#include "commands/history_text.h"

#include "cli/console.h"
#include "cli/units.h"

namespace lora::cli {
namespace {

constexpr std::size_t kShort = 12;

std::string value_text(const Json& value) {
  if (const std::string* text = value.as_string()) return printable(*text);
  return printable(dump_json(value, JsonStyle{}));
}

void append(std::string& text, const std::string& part, const char* separator = ", ") {
  if (part.empty()) return;
  text += (text.empty() ? "" : separator) + part;
}

std::string members_text(const JsonObject& members) {
  std::string text;
  for (const auto& [name, value] : members) {
    if (value.is_null()) continue;
    const bool is_flag = value.as_bool() == true;
    append(text, printable(name) + (is_flag ? std::string() : " " + value_text(value)));
  }
  return text;
}

// "adapter 12ab34cd56ef", with a weight "adapter 12ab34cd56ef times 0.5".
std::string input_text(const Json& input) {
  std::string text, weight;
  const JsonObject* members = input.as_object();
  if (members == nullptr) return value_text(input);
  for (const auto& [name, value] : *members) {
    if (name == "history") continue;
    if (name == "weight") {
      weight = " times " + value_text(value);
    } else {
      append(text, printable(name) + " " + value_text(value).substr(0, kShort));
    }
  }
  return text + weight;
}

std::string step_text(const JsonObject& entry) {
  JsonObject others;
  std::string from, gives, parameters;
  for (const auto& [name, value] : entry) {
    if (name == "operation") continue;
    if (name == "parameters" && value.is_object()) {
      parameters = members_text(*value.as_object());
    } else if (name == "inputs" && value.is_array()) {
      for (const Json& input : *value.as_array()) append(from, input_text(input), " and ");
    } else if (name == "result" && value.is_string()) {
      gives = value_text(value).substr(0, kShort);
    } else {
      others[name] = value;
    }
  }
  std::string text = members_text(others);
  append(text, parameters);
  append(text, from.empty() ? from : "from " + from, "; ");
  append(text, gives.empty() ? gives : "gives " + gives, "; ");
  return text;
}

}  // namespace

std::vector<std::string> history_lines(const JsonArray& history, const std::string& indent) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const JsonObject* entry = history[i].as_object();
    if (entry == nullptr) continue;
    const Json* name = entry->find("operation");
    const std::string details = step_text(*entry);
    lines.push_back(indent + std::to_string(i + 1) + ". " +
                    (name == nullptr ? "(no name)" : value_text(*name)) +
                    (details.empty() ? "" : "  " + details));
    const Json* inputs = entry->find("inputs");
    const JsonArray* list = inputs == nullptr ? nullptr : inputs->as_array();
    for (std::size_t k = 0; list != nullptr && k < list->size(); ++k) {
      const Json* own = (*list)[k].find("history");
      if (own == nullptr || !own->is_array()) continue;
      lines.push_back(indent + "   " + input_text((*list)[k]) + ":");
      for (std::string& line : history_lines(*own->as_array(), indent + "     "))
        lines.push_back(std::move(line));
    }
  }
  return lines;
}

}  // namespace lora::cli
