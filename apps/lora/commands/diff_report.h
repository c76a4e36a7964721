// The answers of diff as text and as JSON.
#pragma once

#include "cli/console.h"
#include "lora/format/json.h"
#include "lora/ops/diff.h"

namespace lora::cli {

/// `all` lists every module or tensor, otherwise the most different ones.
void print_diff(const AdapterDiff& diff, bool all, Console& console);
void print_diff(const CheckpointDiff& diff, bool all, Console& console);
void print_diff(const TunedDiff& diff, bool all, Console& console);

/// The members of `result` (docs/json.md).
JsonObject diff_json(const AdapterDiff& diff);
JsonObject diff_json(const CheckpointDiff& diff);
JsonObject diff_json(const TunedDiff& diff);

}  // namespace lora::cli
