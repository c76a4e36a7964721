// One line of a .jsonl file to one training example.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lora/text/dataset.h"

namespace lora::text {

/// Outcome of a line: an example, or the reason why there is none.
struct LineResult {
  Example example;
  SequenceLabel label;  ///< with LabelUse::sequence
  std::int64_t tokens_before_cut = 0;
  std::string problem;  ///< empty when `example` is good
};

/// `origin` is "file:line". Throws only what makes every further line useless (no tokenizer).
LineResult read_example(std::string_view line, const std::string& origin,
                        const DataOptions& options);

/// Why these ids cannot be fed to the model; empty when they can.
std::string problem_with_ids(const std::vector<std::int64_t>& ids, const DataOptions& options);

/// Throws Error(incompatible) when there is none.
const Tokenizer& required_tokenizer(const DataOptions& options, const std::string& what);

}  // namespace lora::text
