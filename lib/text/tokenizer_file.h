// tokenizer.json split into its two large tables and the small rest.
//
// A document tree for 49,152 tokens and 48,900 merges takes 50 ms to build; reading the two tables
// straight into vectors takes a fraction of that, and the rest is a few kilobytes of plain JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

struct TokenizerFile {
  Json rest;  ///< the whole document with `model.vocab` and `model.merges` null
  std::vector<std::pair<std::string, std::int64_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

/// Throws Error(not_found | malformed); Error(unsupported) when the vocabulary is not a map of
/// tokens to ids (Unigram).
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

/// The same on text at hand; `context` names it in messages.
TokenizerFile parse_tokenizer(std::string_view text, const std::string& context);

}  // namespace lora::text
