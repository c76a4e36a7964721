#include <cstddef>
#include <string_view>

#include "lora/format/json.h"
#include "ops/init_base_plan.h"

namespace lora {
namespace {

struct Member {
  std::string_view key;  // as spelled, escapes included
  std::size_t value_begin = 0;
  std::size_t value_end = 0;
};

std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size() &&
         (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t'))
    ++at;
  return at;
}

// One past the closing quote of the string that opens at `at`.
std::size_t end_of_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at)
    if (text[at] == '\\') ++at;
  return at + 1;
}

std::size_t end_of_value(std::string_view text, std::size_t at) {
  int depth = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      at = end_of_string(text, at) - 1;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth == 0 && (c == ',' || c == '}')) {
      return at;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return at;
}

// Members of the outermost object of a text that is known to parse.
std::vector<Member> top_members(std::string_view text) {
  std::vector<Member> members;
  std::size_t at = skip_space(text, text.find('{') + 1);
  while (at < text.size() && text[at] == '"') {
    const std::size_t key_end = end_of_string(text, at);
    const std::string_view key = text.substr(at + 1, key_end - at - 2);
    const std::size_t begin = skip_space(text, skip_space(text, key_end) + 1);
    const std::size_t end = end_of_value(text, begin);
    std::size_t trimmed = end;
    while (trimmed > begin &&
           std::string_view(" \n\r\t").find(text[trimmed - 1]) != std::string_view::npos)
      --trimmed;
    members.push_back({key, begin, trimmed});
    if (end >= text.size() || text[end] != ',') break;
    at = skip_space(text, end + 1);
  }
  return members;
}

}  // namespace

std::string with_config_dtype(const std::string& config_text, const std::string& dtype) {
  const std::string quoted = "\"" + dtype + "\"";
  std::string result;
  std::size_t copied = 0;
  bool is_old_dialect = false;
  const std::string_view text(config_text);
  for (const Member& member : top_members(text)) {
    const auto value = text.substr(member.value_begin, member.value_end - member.value_begin);
    if (member.key == "transformers_version") is_old_dialect = value.starts_with("\"4.");
    if (member.key != "dtype" && member.key != "torch_dtype") continue;
    result += text.substr(copied, member.value_begin - copied);
    result += quoted;
    copied = member.value_end;
  }
  result += text.substr(copied);
  if (copied != 0) return result;
  const std::string field = is_old_dialect ? "torch_dtype" : "dtype";
  return result.insert(result.find('{') + 1, "\n  \"" + field + "\": " + quoted + ",");
}

std::string with_config_member(const std::string& config_text, const std::string& key,
                               const std::string& value) {
  std::string result = config_text;
  for (const Member& member : top_members(config_text))
    if (member.key == key)
      return result.replace(member.value_begin, member.value_end - member.value_begin, value);
  return result.insert(result.find('{') + 1, "\n  \"" + key + "\": " + value + ",");
}

}  // namespace lora
