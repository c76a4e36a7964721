#include "lora/adapter/strength.h"

#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace lora {
namespace {

constexpr std::string_view kOutProjection = ".base_layer.out_proj";

template <typename Value>
Value most_frequent(const std::map<Value, std::size_t>& frequency) {
  Value best{};
  std::size_t most = 0;
  for (const auto& [value, count] : frequency) {
    if (count <= most) continue;
    most = count;
    best = value;
  }
  return best;
}

bool gives(const AdapterConfig& config, const std::map<std::string, SiteStrength>& strengths) {
  const PatternTable table(config);
  for (const auto& [path, strength] : strengths)
    if (table.rank_of(path) != strength.rank ||
        table.scaling_of(path, strength.rank) != strength.scaling)
      return false;
  return true;
}

}  // namespace

std::string pattern_path(const LoraModule& module) {
  if (module.kind == LayerKind::parameter) return module.base_name;
  if (module.times != 1)
    return module.module_path.substr(0, module.module_path.size() - kOutProjection.size());
  return without_base_layers(module.module_path);
}

double alpha_for(double scaling, std::int64_t rank, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  const double divisor = use_rslora ? std::sqrt(r) : r;
  const double alpha = scaling * divisor;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double candidate : {std::round(alpha), alpha, std::nextafter(alpha, kInfinity),
                                 std::nextafter(alpha, -kInfinity)})
    if (candidate / divisor == scaling) return candidate;
  for (const double candidate :
       {alpha, std::nextafter(alpha, kInfinity), std::nextafter(alpha, -kInfinity)})
    if (static_cast<float>(candidate / divisor) == static_cast<float>(scaling)) return candidate;
  return alpha;
}

void double_ranks(AdapterConfig& config) {
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;
  config.rank *= 2;
  config.alpha *= factor;
  for (auto& [pattern, rank] : config.rank_pattern) rank *= 2;
  for (auto& [pattern, alpha] : config.alpha_pattern) alpha *= factor;
  config.init_lora_weights = true;
}

std::string whole_path_pattern(const std::string& module_path) {
  std::string pattern = "^";
  for (const char c : module_path) {
    if (std::string_view("\\^$*+?{}[]|()").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

void set_strengths(AdapterConfig& config, const std::map<std::string, SiteStrength>& strengths) {
  if (strengths.empty() || gives(config, strengths)) return;
  std::map<std::int64_t, std::size_t> ranks;
  std::map<double, std::size_t> alphas;
  std::map<std::string, double> alpha_by_path;
  for (const auto& [path, strength] : strengths) {
    const double alpha = alpha_for(strength.scaling, strength.rank, config.use_rslora);
    alpha_by_path[path] = alpha;
    ++ranks[strength.rank];
    ++alphas[alpha];
  }
  config.rank = most_frequent(ranks);
  config.alpha = most_frequent(alphas);
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  for (const auto& [path, strength] : strengths) {
    if (strength.rank != config.rank)
      config.rank_pattern.emplace_back(whole_path_pattern(path),
                                       static_cast<double>(strength.rank));
    if (alpha_by_path[path] != config.alpha)
      config.alpha_pattern.emplace_back(whole_path_pattern(path), alpha_by_path[path]);
  }
}

}  // namespace lora
