// tokenizer.json split into its two large tables and the small rest.
//
// A document tree for 49,152 tokens and 48,900 merges takes 50 ms to build; reading the two tables
// straight into packed ones takes a fraction of that, and the rest is a few kilobytes of plain
// JSON.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "format/allocation_budget.h"
#include "lora/format/json.h"
#include "text/token_tables.h"

namespace lora::text {

struct TokenizerFile {
  Json rest;  ///< the whole document with `model.vocab` and `model.merges` null
  TokenTables tables;
  AllocationBudget budget;  ///< what is left for everything made of the file
  bool vocabulary_is_list;  ///< tokens with scores (Unigram), not a map of tokens to ids
};

/// Throws Error(not_found | malformed), also for a file that would take more memory than 64 MiB and
/// twice its size.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

/// The same on text at hand; `context` names it in messages.
TokenizerFile parse_tokenizer(std::string_view text, const std::string& context);

/// Throws Error(malformed) when `budget` does not cover `bytes`.
void spend_memory_of_tokenizer(AllocationBudget& budget, std::uint64_t bytes,
                               const std::string& context);

}  // namespace lora::text
