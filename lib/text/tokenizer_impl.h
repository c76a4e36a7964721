// The parts of a tokenizer put together.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lora/text/tokenizer.h"
#include "text/added_vocabulary.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/piece_cache.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/token_model.h"
#include "text/tokenizer_file.h"

namespace lora {

struct Tokenizer::Impl {
  Impl(text::TokenizerFile file, const std::string& file_name,
       const std::vector<text::AddedToken>& extra);

  using Receiver = std::function<void(std::span<const TokenId>)>;
  void encode(std::string_view input, bool add_special_tokens, int threads,
              const Receiver& receive) const;

  /// Hands the spelling of a token to a decoding, unless it is skipped or there is none.
  void decode_into(text::Decoding& decoding, TokenId id, bool skip_special_tokens) const;

  /// A hole between the ids has no spelling at all, which is not an empty one.
  bool is_token(TokenId id) const;
  std::optional<TokenId> id_of_name(std::string_view name) const;
  std::string name_of_id(const std::optional<TokenId>& id) const;
  void set_special(const text::SpecialTokens& tokens);

  std::string context;
  text::PreTokenizer pre_tokenizer;
  std::unique_ptr<text::TokenModel> model;
  text::Normalizer normalizer;
  text::PostProcessor post_processor;
  text::Decoder decoder;
  text::AddedVocabulary added;
  std::string model_text;                   // spellings of the model's tokens
  std::vector<std::string_view> spellings;  // by id, without data for holes
  std::vector<char> special;                // by id: added as special
  std::vector<char> skipped;                // by id: left out of a text without special tokens
  std::size_t total_size = 0;
  std::optional<TokenId> bos, eos, pad;

 private:
  struct Parts;
  void index_spellings(text::TokenizerFile& file);
  void require_tokens(const std::vector<std::int64_t>& ids) const;
  void encode_text(const text::Piece& piece, Parts& out) const;
  void encode_long(text::Piece piece, int threads, const Receiver& receive) const;
  void encode_normalized(std::string_view piece, std::size_t start, Parts& out) const;
  std::unique_ptr<text::PieceCache> borrow_cache() const;
  void return_cache(std::unique_ptr<text::PieceCache> cache) const;

  mutable std::mutex cache_mutex_;
  mutable std::vector<std::unique_ptr<text::PieceCache>> caches_;
};

}  // namespace lora
