// The report of verify for people and as JSON.
#pragma once

#include <vector>

#include "cli/console.h"
#include "commands/report_formats.h"
#include "lora/format/json.h"
#include "lora/ops/verify.h"

namespace lora::cli {

struct ReportStyle {
  bool all_modules = false;     ///< a row a module, instead of the first few
  bool is_one_of_many = false;  ///< no figures of modules unless all are asked for
};

/// One screen for a healthy adapter; findings grouped by rule.
void print_verify_report(const VerifyReport& report, const ReportStyle& style, Console& console);

/// A row an adapter, a line with the number of adapters a verdict, and where they are for different
/// bases a line a base.
void print_verify_summary(const std::vector<VerifiedAdapter>& adapters, Console& console);

/// {"proven", "plausible", "contradicted", "unreadable", "errors", "warnings", "notes",
/// "left_out", "accepted", "bases": [{"name", "root", "adapters"}]}.
Json verify_summary_json(const std::vector<VerifiedAdapter>& adapters);

Json verify_report_json(const VerifyReport& report);

}  // namespace lora::cli
