// PEFT's check_target_module_exists with every expression compiled once.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "adapter/python_regex.h"
#include "lora/adapter/config.h"

namespace lora {

/// `path` equals an entry or ends with "." + entry.
bool selects(std::string_view entry, std::string_view path);

/// Entries of a list, which may be as many as the paths they are compared with.
class NameEndings {
 public:
  NameEndings() = default;
  explicit NameEndings(const std::vector<std::string>& entries);

  bool holds(std::string_view path) const { return entries_.contains(path); }
  /// One of the entries selects `path`.
  bool any_selects(std::string_view path) const;

 private:
  std::set<std::string, std::less<>> entries_;
};

class TargetMatcher {
 public:
  enum class Verdict {
    unmatched,  ///< by target_modules
    filtered,   ///< an ending of target_modules matches, in a layer layers_to_transform leaves out
    excluded,   ///< by exclude_modules
    saved,      ///< modules_to_save has it
    targeted,
  };

  /// `config` must have target_modules as a list or an expression; throws Error(usage).
  explicit TargetMatcher(const AdapterConfig& config);

  Verdict check(const std::string& module_path) const;

 private:
  bool is_excluded(const std::string& module_path) const;
  bool is_saved(const std::string& module_path) const;
  Verdict check_targets(const std::string& module_path) const;
  bool passes_layer_filter(const std::string& module_path) const;

  std::optional<PythonRegex> exclude_regex_;
  NameEndings exclude_names_;
  std::vector<PythonRegex> saved_;
  std::optional<PythonRegex> target_regex_;
  NameEndings target_names_;
  std::set<std::int64_t> layers_;
  std::vector<PythonRegex> layer_index_;
};

}  // namespace lora
