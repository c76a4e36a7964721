// Labels of whole sequences: one line's, and those of a data set.
#pragma once

#include <string>
#include <vector>

#include "lora/format/json.h"
#include "lora/text/dataset.h"

namespace lora::text {

/// Reads a line's `label`. Returns what is wrong with it, empty when `label` is good.
std::string read_label(const Json& line, const LabelOptions& options, SequenceLabel& label);

/// Gathers labels line by line: all are classes, or all are values.
class SequenceLabels {
 public:
  /// Returns why this label does not go with those before it; empty when it was added.
  std::string add(const SequenceLabel& label);
  /// I64 [n] classes or F32 [n, values]; empties this.
  Tensor take();

 private:
  std::vector<std::int64_t> classes_;
  std::vector<float> values_;
  std::int64_t values_each_ = 0;
};

}  // namespace lora::text
