// The report of verify for people and as JSON.
#pragma once

#include "cli/console.h"
#include "lora/format/json.h"
#include "lora/ops/verify.h"

namespace lora::cli {

/// One screen for a healthy adapter; findings grouped by rule. `all_modules` adds a row a module.
void print_verify_report(const VerifyReport& report, bool all_modules, Console& console);

Json verify_report_json(const VerifyReport& report);

}  // namespace lora::cli
