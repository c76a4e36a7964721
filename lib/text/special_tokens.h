// What the files beside tokenizer.json say about special tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"

namespace lora::text {

struct SpecialTokens {
  std::string bos, eos, pad;                           ///< contents, empty when not named
  std::optional<std::int64_t> bos_id, eos_id, pad_id;  ///< from config.json
  /// `added_tokens_decoder`: tokens that a tokenizer.json may lack. Ids as written there.
  std::vector<AddedToken> added;
};

/// Reads tokenizer_config.json, special_tokens_map.json and config.json of a model directory, the
/// first that names a token wins. Missing files are fine; broken ones throw Error(malformed).
SpecialTokens read_special_tokens(const std::filesystem::path& directory);

}  // namespace lora::text
