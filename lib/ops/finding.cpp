#include "lora/ops/finding.h"

namespace lora {

std::string_view to_string(Severity severity) {
  switch (severity) {
    case Severity::note:
      return "note";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
  }
  return "error";
}

namespace {

std::uint64_t weight_of(const Finding& finding) { return finding.more == 0 ? 1 : finding.more; }

}  // namespace

std::uint64_t count_of(const Findings& findings, Severity severity) {
  std::uint64_t count = 0;
  for (const Finding& finding : findings)
    count += finding.severity == severity ? weight_of(finding) : 0;
  return count;
}

std::uint64_t count_of(const Findings& findings) {
  std::uint64_t count = 0;
  for (const Finding& finding : findings) count += weight_of(finding);
  return count;
}

}  // namespace lora
