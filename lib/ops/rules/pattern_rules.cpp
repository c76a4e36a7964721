#include <algorithm>
#include <map>
#include <memory>

#include "adapter/name_pattern.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

void dead_patterns(const Subject& subject, Report& report) {
  const AdapterConfig& config = subject.adapter.config;
  std::vector<std::string> dead;
  std::size_t targets = subject.adapter.modules.size();
  if (subject.targets) {
    dead = subject.targets->dead_patterns;
    targets = subject.targets->lora.size();
  } else if (!subject.adapter.modules.empty()) {
    std::vector<std::string> paths;
    for (const LoraModule& module : subject.adapter.modules) paths.push_back(pattern_path(module));
    dead = PatternTable(config).dead_keys(paths);
  }
  if (dead.empty()) return;
  report.add("rank_pattern or alpha_pattern keys match none of " + std::to_string(targets) +
             " targeted modules: " + report.list(dead));
}

// One of the two patterns, evaluated in the order of the file and in the order PEFT saves it.
class Overlap {
 public:
  Overlap(const Subject& subject, bool is_rank)
      : subject_(subject), is_rank_(is_rank), pattern_(pattern_of(subject.adapter.config)) {}

  void report(Report& report) {
    if (pattern_.size() < 2) return;
    compare();
    const auto add = [&](const std::vector<std::string>& modules, const std::string& example,
                         Severity severity) {
      if (!modules.empty())
        report.add(counted(modules.size(), "module") + " " + name() + " " + example + ": " +
                       report.list(group_layers(modules), 3),
                   {.tensor = {}, .module = modules.front(), .hint = {}, .severity = severity});
    };
    add(changing_, changing_example_, Severity::error);
    add(wrong_order_, wrong_example_, Severity::error);
    add(unproven_, unproven_example_, Severity::warning);
    add(proven_, proven_example_, Severity::note);
  }

 private:
  const NumberPattern& pattern_of(const AdapterConfig& config) const {
    return is_rank_ ? config.rank_pattern : config.alpha_pattern;
  }

  std::string name() const {
    return std::string("matched by several keys of ") +
           (is_rank_ ? "rank_pattern" : "alpha_pattern");
  }

  static AdapterConfig with_pattern(AdapterConfig config, bool is_rank, NumberPattern pattern) {
    (is_rank ? config.rank_pattern : config.alpha_pattern) = std::move(pattern);
    return config;
  }

  // The values of all keys that match.
  std::vector<double> values_of(const std::string& path) const {
    std::vector<double> values;
    for (std::size_t i = 0; i < keys_.size(); ++i)
      if (keys_[i].matches(path)) values.push_back(pattern_[i].second);
    return values;
  }

  void compare() {
    NumberPattern sorted = pattern_;
    std::sort(sorted.begin(), sorted.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto steps = std::make_shared<RegexSteps>();
    for (const auto& [key, value] : pattern_) keys_.emplace_back(key, steps);
    const PatternTable now(subject_.adapter.config);
    const PatternTable reloaded(with_pattern(subject_.adapter.config, is_rank_, sorted));
    for (const LoraModule& module : subject_.adapter.modules) {
      const std::string path = pattern_path(module);
      std::vector<double> values = values_of(path);
      if (values.size() < 2) continue;
      const bool differ =
          std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) != values.end();
      const double here = value_of(now, path);
      const double later = value_of(reloaded, path);
      if (!differ) {
        note(proven_, proven_example_, module, "with one value, " + figure(here));
      } else if (here != later) {
        note(changing_, changing_example_, module,
             "have " + what() + " " + figure(here) + " in the order of the file and " +
                 figure(later) + " once PEFT saved it sorted" + trained_with(module, here, later));
      } else if (is_rank_ && static_cast<double>(module.rank) == here) {
        note(proven_, proven_example_, module,
             "have rank " + figure(here) + " in either order, and so have their tensors");
      } else if (is_rank_) {
        note(wrong_order_, wrong_example_, module,
             "have rank " + figure(here) + " in the order of the file and " +
                 std::to_string(module.rank) + " in their tensors: they were trained in another");
      } else if (subject_.manifest && subject_.manifest->scaling.contains(module.module_path)) {
        note(proven_, proven_example_, module, "have a recorded scaling");
      } else {
        note(unproven_, unproven_example_, module,
             "have alpha " + figure(here) +
                 " in the order of the file; it may have been another in training");
      }
    }
  }

  std::string what() const { return is_rank_ ? "rank" : "alpha"; }

  std::string trained_with(const LoraModule& module, double here, double later) const {
    if (!is_rank_) return "";
    const auto rank = static_cast<double>(module.rank);
    if (rank == here) return " (the tensors have the former)";
    return rank == later ? " (the tensors have the latter)" : "";
  }

  double value_of(const PatternTable& table, const std::string& path) const {
    return is_rank_ ? static_cast<double>(table.rank_of(path)) : table.alpha_of(path);
  }

  static void note(std::vector<std::string>& modules, std::string& example,
                   const LoraModule& module, std::string text) {
    if (modules.empty()) example = std::move(text);
    modules.push_back(module.module_path);
  }

  const Subject& subject_;
  bool is_rank_;
  const NumberPattern& pattern_;
  std::vector<NamePattern> keys_;
  std::vector<std::string> changing_, wrong_order_, unproven_, proven_;
  std::string changing_example_, wrong_example_, unproven_example_, proven_example_;
};

void overlapping_patterns(const Subject& subject, Report& report) {
  for (const bool is_rank : {true, false}) Overlap(subject, is_rank).report(report);
}

}  // namespace

const std::vector<Rule>& pattern_rules() {
  static const std::vector<Rule> rules{
      {{"LV207", "pattern-dead", Severity::warning,
        "rank_pattern and alpha_pattern against the targeted modules",
        "A pattern selects nothing, so its modules have the default rank or alpha.",
        "correct or remove the pattern"},
       dead_patterns},
      {{"LV208", "pattern-overlap", Severity::error,
        "modules that several keys of rank_pattern or alpha_pattern match, in the order of the "
        "file, in sorted order, and against the tensors' ranks",
        "The first match wins and PEFT saves the keys sorted: another key may have counted in "
        "training (a warning when the order of the file is the saved one and alpha cannot be "
        "proven, a note when it is proven or makes no difference).",
        "write fully qualified keys that do not overlap"},
       overlapping_patterns},
  };
  return rules;
}

}  // namespace lora::rules
