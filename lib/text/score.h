// Scores of Unigram tokens.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace lora::text {

struct Score {
  double value;
  std::size_t size;  ///< bytes of the text that were the number
};

/// The number that `text` begins with, with the bits that the tokenizers package reads: its JSON
/// parser multiplies digits by a power of ten and so misses the nearest number in about one of
/// eight cases, and scores decide between equal sums. Nothing when there is no number, or one out
/// of range.
std::optional<Score> read_score(std::string_view text);

}  // namespace lora::text
