#include "adapter/target_match.h"

#include <algorithm>
#include <charconv>

namespace lora {
namespace {

constexpr const char* kIndexGroup = "idx";

std::optional<std::int64_t> to_index(const std::string& digits) {
  std::int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

}  // namespace

bool selects(std::string_view entry, std::string_view path) {
  if (!path.ends_with(entry)) return false;
  if (path.size() == entry.size()) return true;
  return path[path.size() - entry.size() - 1] == '.';
}

NameEndings::NameEndings(const std::vector<std::string>& entries)
    : entries_(entries.begin(), entries.end()) {}

bool NameEndings::any_selects(std::string_view path) const {
  for (std::string_view end = path;;) {
    if (holds(end)) return true;
    const std::size_t dot = end.find('.');
    if (dot == std::string_view::npos) return false;
    end.remove_prefix(dot + 1);
  }
}

TargetMatcher::TargetMatcher(const AdapterConfig& config) {
  const auto steps = std::make_shared<RegexSteps>();
  // An empty pattern or list is falsy in Python: no exclusion at all.
  if (const auto* pattern = std::get_if<std::string>(&config.exclude_modules)) {
    if (!pattern->empty()) exclude_regex_.emplace(*pattern, steps);
  } else if (const auto* names = std::get_if<std::vector<std::string>>(&config.exclude_modules)) {
    exclude_names_ = NameEndings(*names);
  }
  for (const std::string& entry : config.modules_to_save)
    saved_.emplace_back("(^|.*\\.)" + entry + "($|\\..*)", steps);
  if (const auto* pattern = std::get_if<std::string>(&config.target_modules)) {
    target_regex_.emplace(*pattern, steps);
  } else {
    target_names_ = NameEndings(std::get<std::vector<std::string>>(config.target_modules));
  }
  layers_.insert(config.layers_to_transform.begin(), config.layers_to_transform.end());
  if (layers_.empty()) return;
  // The lazy start finds the layer, not the expert inside it.
  for (const std::string& pattern : config.layers_pattern)
    layer_index_.emplace_back("(?:^|.*?\\.)" + pattern + "\\.(?P<idx>\\d+)\\.", steps);
  if (layer_index_.empty()) layer_index_.emplace_back(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", steps);
}

TargetMatcher::Verdict TargetMatcher::check(const std::string& module_path) const {
  if (is_excluded(module_path)) return Verdict::excluded;
  if (is_saved(module_path)) return Verdict::saved;
  return check_targets(module_path);
}

bool TargetMatcher::is_excluded(const std::string& module_path) const {
  if (exclude_regex_ && exclude_regex_->full_match(module_path)) return true;
  return exclude_names_.any_selects(module_path);
}

bool TargetMatcher::is_saved(const std::string& module_path) const {
  return std::any_of(saved_.begin(), saved_.end(),
                     [&](const PythonRegex& regex) { return regex.match(module_path); });
}

TargetMatcher::Verdict TargetMatcher::check_targets(const std::string& module_path) const {
  if (target_regex_)
    return target_regex_->full_match(module_path) ? Verdict::targeted : Verdict::unmatched;
  if (target_names_.holds(module_path)) return Verdict::targeted;
  if (!target_names_.any_selects(module_path)) return Verdict::unmatched;
  return passes_layer_filter(module_path) ? Verdict::targeted : Verdict::filtered;
}

bool TargetMatcher::passes_layer_filter(const std::string& module_path) const {
  if (layers_.empty()) return true;
  for (const PythonRegex& regex : layer_index_) {
    const auto found = regex.match_group(module_path, kIndexGroup);
    if (!found) continue;
    const auto index = *found ? to_index(**found) : std::nullopt;
    return index && layers_.contains(*index);
  }
  return false;
}

}  // namespace lora
