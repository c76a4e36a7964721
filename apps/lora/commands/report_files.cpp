#include <system_error>

#include "commands/report_formats.h"

namespace lora::cli {

std::filesystem::path file_of(const VerifiedAdapter& adapter, const Finding& finding) {
  const std::filesystem::path& path = adapter.report.path;
  if (!finding.file.empty() && finding.file != path.string()) return finding.file;
  std::error_code ignored;
  const char group = finding.rule.size() > 2 ? finding.rule[2] : '0';
  const std::filesystem::path config = path / kAdapterConfigName;
  if ((group == '2' || group == '5') && std::filesystem::is_regular_file(config, ignored))
    return config;
  return adapter.weights_path.empty() ? path : adapter.weights_path;
}

std::string title_of(const Finding& finding) {
  for (const RuleInfo& rule : verify_rules())
    if (rule.id == finding.rule) return finding.rule + " " + std::string(rule.name);
  return finding.rule;
}

}  // namespace lora::cli
