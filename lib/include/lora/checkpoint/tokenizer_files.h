// The tokenizer and the chat template that lie in a folder, as far as their identity goes. The same
// weights behind another tokenizer or template are another model to whoever uses it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/sha256.h"

namespace lora {

inline constexpr const char* kTokenizerName = "tokenizer.json";
inline constexpr const char* kTokenizerConfigName = "tokenizer_config.json";
inline constexpr const char* kChatTemplateName = "chat_template.jinja";

struct TokenizerFiles {
  std::optional<Digest> tokenizer;           ///< SHA-256 of the bytes of tokenizer.json
  std::optional<std::string> chat_template;  ///< text; several named ones as "NAME: TEXT" lines
  std::optional<Digest> chat_template_digest() const;
};

/// chat_template.jinja, else `chat_template` of tokenizer_config.json, as transformers looks for
/// it. Files that are absent, unreadable or larger than 256 MiB give no entry.
TokenizerFiles read_tokenizer_files(const std::filesystem::path& directory);

/// How the vocabularies of two tokenizer.json files differ; added tokens belong to them.
struct TokenizerDifference {
  std::size_t tokens_a = 0, tokens_b = 0;
  std::vector<std::string> only_in_a, only_in_b;  ///< tokens, sorted
  std::vector<std::string> renumbered;            ///< tokens with another id, sorted
  bool is_empty() const { return only_in_a.empty() && only_in_b.empty() && renumbered.empty(); }
};

/// Reads both files as event streams. Throws Error(not_found | malformed).
TokenizerDifference compare_tokenizers(const std::filesystem::path& a,
                                       const std::filesystem::path& b);

}  // namespace lora
