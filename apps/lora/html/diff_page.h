// `diff --html`: how two adapters, two checkpoints, or an adapter and a tuned checkpoint differ, as
// a page.
#pragma once

#include <optional>
#include <string>

#include "lora/ops/diff.h"
#include "lora/ops/diff_outputs.h"

namespace lora::cli {

/// What stands at the head of the page.
struct DiffSides {
  std::string a, b;
  std::optional<OutputDiff> outputs;
};

std::string diff_page(const DiffSides& sides, const AdapterDiff& result);
std::string diff_page(const DiffSides& sides, const CheckpointDiff& result);
std::string diff_page(const DiffSides& sides, const TunedDiff& result);

}  // namespace lora::cli
