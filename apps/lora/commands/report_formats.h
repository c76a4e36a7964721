// verify's answer in the formats that other tools read. Each is one document for a whole run; the
// same findings give the same bytes, so none of them holds times or host names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lora/base/error.h"
#include "lora/ops/adapter_set.h"
#include "lora/ops/verify.h"

namespace lora::cli {

/// One adapter of a run, without its tensors.
struct VerifiedAdapter {
  VerifyReport report;  ///< `adapter` and `modules` emptied
  std::filesystem::path weights_path;
  StatedBase base;
};

/// The file a finding points at: its own, else the configuration (rules LV2xx and LV5xx) or the
/// weights of the adapter.
std::filesystem::path file_of(const VerifiedAdapter& adapter, const Finding& finding);

/// Rule id and name: "LV305 key-wrapper-prefix".
std::string title_of(const Finding& finding);

/// JUnit XML: a suite an adapter, a case a check. Errors are failures of the check they belong to
/// (an unreadable path and a check that could not be made are errors there), checks not asked for
/// are skipped, warnings and notes are output of the suite.
std::string junit_report(const std::vector<VerifiedAdapter>& adapters);
std::string junit_failure(const Error& error);

/// SARIF 2.1.0. Findings accepted by a baseline are in it as suppressed results.
std::string sarif_report(const std::vector<VerifiedAdapter>& adapters, int exit_code);
std::string sarif_failure(const Error& error, int exit_code);

/// Workflow commands of GitHub Actions: `::error file=F,title=T::MESSAGE`, one line a finding.
std::string github_report(const std::vector<VerifiedAdapter>& adapters);
std::string github_failure(const Error& error);

}  // namespace lora::cli
