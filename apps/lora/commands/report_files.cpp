#include <system_error>

#include "commands/report_formats.h"

namespace lora::cli {
namespace {

// Where an adapter could not be opened: what is missing of it, or else what is damaged.
std::filesystem::path file_to_look_at(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto has = [&](const char* name) {
    return std::filesystem::is_regular_file(path / name, ignored);
  };
  if (!std::filesystem::is_directory(path, ignored)) return path;
  if (!has(kAdapterConfigName)) return path / kAdapterConfigName;
  const bool is_pickle = has(kAdapterPickleName) && !has(kAdapterWeightsName);
  return path / (is_pickle ? kAdapterPickleName : kAdapterWeightsName);
}

}  // namespace

std::filesystem::path file_of(const VerifiedAdapter& adapter, const Finding& finding) {
  const std::filesystem::path& path = adapter.report.path;
  if (!finding.file.empty() && finding.file != path.string()) return finding.file;
  std::error_code ignored;
  const char group = finding.rule.size() > 2 ? finding.rule[2] : '0';
  const std::filesystem::path config = path / kAdapterConfigName;
  if ((group == '2' || group == '5') && std::filesystem::is_regular_file(config, ignored))
    return config;
  return adapter.weights_path.empty() ? file_to_look_at(path) : adapter.weights_path;
}

std::string title_of(const Finding& finding) {
  for (const RuleInfo& rule : verify_rules())
    if (rule.id == finding.rule) return finding.rule + " " + std::string(rule.name);
  return finding.rule;
}

}  // namespace lora::cli
