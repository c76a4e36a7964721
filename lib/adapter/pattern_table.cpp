#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "adapter/name_pattern.h"
#include "lora/adapter/config.h"

namespace lora {
namespace {

using CompiledPattern = std::vector<std::pair<NamePattern, double>>;

CompiledPattern compile(const NumberPattern& pattern, const std::shared_ptr<RegexSteps>& steps) {
  CompiledPattern compiled;
  for (const auto& [key, value] : pattern) compiled.emplace_back(NamePattern(key, steps), value);
  return compiled;
}

double first_match(const CompiledPattern& pattern, std::string_view module_path, double fallback) {
  const auto found = std::find_if(pattern.begin(), pattern.end(), [&](const auto& entry) {
    return entry.first.matches(module_path);
  });
  return found == pattern.end() ? fallback : found->second;
}

}  // namespace

struct PatternTable::Entries {
  std::int64_t rank;
  double alpha;
  bool use_rslora;
  CompiledPattern ranks;
  CompiledPattern alphas;
  std::vector<std::string> keys;  ///< of ranks, then of alphas
};

PatternTable::PatternTable(const AdapterConfig& config) {
  const auto steps = std::make_shared<RegexSteps>();
  auto entries = std::make_unique<Entries>(Entries{config.rank,
                                                   config.alpha,
                                                   config.use_rslora,
                                                   compile(config.rank_pattern, steps),
                                                   compile(config.alpha_pattern, steps),
                                                   {}});
  for (const NumberPattern* pattern : {&config.rank_pattern, &config.alpha_pattern})
    for (const auto& [key, value] : *pattern) entries->keys.push_back(key);
  entries_ = std::move(entries);
}

PatternTable::~PatternTable() = default;
PatternTable::PatternTable(PatternTable&&) noexcept = default;
PatternTable& PatternTable::operator=(PatternTable&&) noexcept = default;

std::int64_t PatternTable::rank_of(std::string_view module_path) const {
  const double rank =
      first_match(entries_->ranks, module_path, static_cast<double>(entries_->rank));
  return static_cast<std::int64_t>(rank);
}

double PatternTable::alpha_of(std::string_view module_path) const {
  return first_match(entries_->alphas, module_path, entries_->alpha);
}

double PatternTable::scaling_of(std::string_view module_path, std::int64_t rank) const {
  const double r = static_cast<double>(rank);
  return alpha_of(module_path) / (entries_->use_rslora ? std::sqrt(r) : r);
}

std::vector<std::string> PatternTable::dead_keys(
    const std::vector<std::string>& module_paths) const {
  std::set<std::string> dead;
  const auto is_dead = [&](const NamePattern& pattern) {
    return std::none_of(module_paths.begin(), module_paths.end(),
                        [&](const std::string& path) { return pattern.matches(path); });
  };
  const std::size_t ranks = entries_->ranks.size();
  for (std::size_t i = 0; i < entries_->keys.size(); ++i) {
    const NamePattern& pattern =
        i < ranks ? entries_->ranks[i].first : entries_->alphas[i - ranks].first;
    if (is_dead(pattern)) dead.insert(entries_->keys[i]);
  }
  return {dead.begin(), dead.end()};
}

std::int64_t rank_of(const AdapterConfig& config, std::string_view module_path) {
  return PatternTable(config).rank_of(module_path);
}

double alpha_of(const AdapterConfig& config, std::string_view module_path) {
  return PatternTable(config).alpha_of(module_path);
}

double scaling_of(const AdapterConfig& config, std::string_view module_path, std::int64_t rank) {
  return PatternTable(config).scaling_of(module_path, rank);
}

}  // namespace lora
