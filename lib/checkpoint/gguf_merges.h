// The merges of a SentencePiece vocabulary, which a GGUF file may leave out.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace lora {

/// Pairs of tokens, best first, as transformers recovers them: every way to cut a token into two
/// tokens, ordered by the scores of the tokens that they make. `tokens` are distinct and UTF-8,
/// `scores` are theirs and no NaN. Nothing when the pairs would spell more than `most_bytes`.
std::optional<std::vector<std::pair<std::string_view, std::string_view>>> implied_merges(
    const std::vector<std::string_view>& tokens, const std::vector<double>& scores,
    std::uint64_t most_bytes);

}  // namespace lora
