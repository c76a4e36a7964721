// What makes tokens of the pieces of a text: the `model` of a tokenizer.json.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_index.h"
#include "text/tokenizer_file.h"

namespace lora::text {

/// Tables are indexed by id, so a file may not name ids far beyond any vocabulary in use.
inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;

/// Immutable; may be used from several threads at once.
class TokenModel {
 public:
  virtual ~TokenModel() = default;

  /// Puts the tokens of `piece` into `out`. Neither may hold anything else: the piece is not empty,
  /// `out` is.
  virtual void encode(std::string_view piece, std::vector<std::uint32_t>& out) const = 0;

  /// Id by the spelling in the file, TokenIndex::kNone when absent.
  virtual std::uint32_t find(std::string_view spelling) const = 0;
};

enum class ModelKind { bpe, word_piece, unigram };

/// The kind of the model of a file. Throws Error(unsupported | malformed).
ModelKind model_kind(const TokenizerFile& file, const std::string& context);

/// Whether the model can take raw bytes for the characters that ByteLevel makes of them.
bool takes_bytes(const TokenizerFile& file, const std::string& context);

/// Builds the model. `pieces_are_bytes`: pieces come as raw bytes, of which the file's alphabet is
/// made. Throws Error(unsupported | malformed), with `context` for the file.
std::unique_ptr<TokenModel> make_model(TokenizerFile& file, bool pieces_are_bytes,
                                       const std::string& context);

/// Throws Error(malformed) for a piece of more than Tokenizer::kMaxWordBytes.
void require_short_piece(std::string_view piece);

/// Enters all tokens of a map from spellings to ids. Throws Error(malformed) for ids out of range
/// and spellings that come twice.
TokenIndex index_of(const TokenTables& tables, const std::string& context);

/// Ids of "<0x00>" to "<0xFF>", TokenIndex::kNone where there is none.
std::vector<std::uint32_t> byte_tokens(const TokenIndex& index);

}  // namespace lora::text
