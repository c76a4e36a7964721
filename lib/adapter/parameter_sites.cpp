#include "adapter/parameter_sites.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "adapter/target_match.h"
#include "lora/adapter/keys.h"

namespace lora {
namespace {

constexpr std::pair<int, int> kExpertsOutInSince{0, 19};

bool is_registered_last(std::string_view parameter) {
  constexpr std::array<std::string_view, 5> kNames{"down_proj", "down_proj_bias", "w2",
                                                   "output_linear", "c_proj"};
  return std::find(kNames.begin(), kNames.end(), parameter) != kNames.end();
}

// Nullopt when the configuration targets no modules.
std::optional<TargetMatcher> matcher_of_modules(const AdapterConfig& config) {
  if (std::holds_alternative<std::monostate>(config.target_modules)) return std::nullopt;
  const auto* names = std::get_if<std::vector<std::string>>(&config.target_modules);
  if (names != nullptr && names->empty()) return std::nullopt;
  return TargetMatcher(config);
}

}  // namespace

std::vector<std::string> target_parameters(const AdapterConfig& config) {
  std::vector<std::string> entries;
  const Json* field = config.other.find("target_parameters");
  const JsonArray* listed = field == nullptr ? nullptr : field->as_array();
  if (listed == nullptr) return entries;
  for (const Json& entry : *listed)
    if (const std::string* name = entry.as_string()) entries.push_back(*name);
  return entries;
}

std::vector<std::string> parameters_of(const std::string& module_path,
                                       const std::vector<std::string>& entries) {
  std::vector<std::string> names;
  for (const std::string& entry : entries) {
    const std::size_t dot = entry.rfind('.');
    std::string name = dot == std::string::npos ? entry : entry.substr(dot + 1);
    const bool is_here = dot == std::string::npos || selects(entry.substr(0, dot), module_path);
    if (is_here && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  }
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return !is_registered_last(name); });
  return names;
}

std::map<std::string, ParameterName> name_parameter_sites(const AdapterConfig& config,
                                                          const std::vector<std::string>& paths) {
  std::map<std::string, ParameterName> named;
  const std::vector<std::string> entries = target_parameters(config);
  if (entries.empty()) return named;
  const std::optional<TargetMatcher> modules = matcher_of_modules(config);
  const auto is_module_target = [&](const std::string& path) {
    return modules && modules->check(path) == TargetMatcher::Verdict::targeted;
  };
  std::map<std::string, std::vector<std::string>> sites_of;
  for (const std::string& path : paths) sites_of[without_base_layers(path)].push_back(path);
  for (auto& [module_path, sites] : sites_of) {
    const std::vector<std::string> names = parameters_of(module_path, entries);
    if (names.empty() || is_module_target(module_path)) continue;
    std::sort(sites.begin(), sites.end(),
              [](const std::string& x, const std::string& y) { return x.size() > y.size(); });
    for (std::size_t i = 0; i < std::min(sites.size(), names.size()); ++i)
      named[sites[i]] = {module_path + "." + names[i], names.size() == 1};
  }
  return named;
}

bool is_in_out_by_version(const AdapterConfig& config) {
  const auto release = peft_release(config);
  return !release || *release < kExpertsOutInSince;
}

}  // namespace lora
