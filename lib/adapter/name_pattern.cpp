#include "adapter/name_pattern.h"

#include <algorithm>

namespace lora {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

std::string plain_form(std::string_view key) {
  std::string plain;
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (key[i] == '.') {
      plain += '\0';
    } else if (key[i] == '\\' && i + 1 < key.size() && key[i + 1] == '.') {
      plain += '.';
      ++i;
    } else if (is_name_character(key[i])) {
      plain += key[i];
    } else {
      return {};
    }
  }
  return plain;
}

// One byte is one character here, so a wildcard stands for exactly one byte.
bool is_simple(std::string_view name) {
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= ' ' && static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

NamePattern::NamePattern(std::string key, std::shared_ptr<RegexSteps> steps)
    : key_(std::move(key)), steps_(std::move(steps)), plain_(plain_form(key_)) {
  if (plain_.empty()) regex_.emplace("(.*\\.)?(" + key_ + ")$", steps_);
}

bool NamePattern::matches(std::string_view module_path) const {
  if (plain_.empty() || !is_simple(module_path)) {
    return regex_ ? regex_->match(module_path)
                  : PythonRegex("(.*\\.)?(" + key_ + ")$", steps_).match(module_path);
  }
  if (module_path.size() < plain_.size()) return false;
  const std::size_t start = module_path.size() - plain_.size();
  if (start != 0 && module_path[start - 1] != '.') return false;
  return std::equal(plain_.begin(), plain_.end(), module_path.begin() + static_cast<long>(start),
                    [](char want, char have) { return want == '\0' || want == have; });
}

}  // namespace lora
