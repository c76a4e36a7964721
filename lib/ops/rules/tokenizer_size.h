// How many tokens the tokenizer in a folder knows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace lora::rules {

/// The largest id among the added tokens of tokenizer_config.json, added_tokens.json and
/// tokenizer.json, plus 1: added tokens come behind the vocabulary, and a tokenizer that was
/// enlarged has some. nullopt when there is none or no file can be read. Of tokenizer.json only the
/// short list of added tokens is parsed.
std::optional<std::int64_t> tokenizer_size(const std::filesystem::path& directory);

}  // namespace lora::rules
