// What verify says about a merged checkpoint, as text and as JSON.
#pragma once

#include "cli/console.h"
#include "lora/format/json.h"
#include "lora/ops/verify_merged.h"

namespace lora::cli {

/// A table of the updated tensors: all of them, or the most remarkable few.
void print_merged_report(const MergedReport& report, bool all_tensors, Console& console);

Json merged_report_json(const MergedReport& report);

}  // namespace lora::cli
