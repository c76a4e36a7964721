// Tokenizers in the tokenizer.json format, token for token as the `tokenizers` package computes
// them (compared with its release 0.23).
//
// Understood, with all their settings unless one is named:
// models BPE (dropout 0), WordPiece, Unigram;
// normalizers BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled,
// Prepend, Replace, Sequence, Strip, StripAccents; pre-tokenizers none, BertPreTokenizer,
// ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, Sequence, Split,
// Whitespace, WhitespaceSplit; post-processors BertProcessing, ByteLevel, RobertaProcessing,
// Sequence, TemplateProcessing; decoders none, BPEDecoder, ByteFallback, ByteLevel, Fuse,
// Metaspace, Replace, Sequence, Strip, WordPiece; added tokens with lstrip, rstrip, single_word,
// normalized. The `truncation` and `padding` blocks are ignored: whoever builds batches decides.
// Any other component is an Error(unsupported) that names it and the file.
//
// Unicode: the GPT-2 and Llama-3 splitting patterns, punctuation, white space, words, digits, marks
// and lower case are this project's own tables, of the versions that the reference uses. Other
// patterns run on PCRE2, whose classes (\p{L}) are those of the Unicode version that it was built
// with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lora {

using TokenId = std::int64_t;

namespace text {
class Decoding;
}

/// Immutable after loading; every const function may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads `directory`/tokenizer.json, and names of special tokens from tokenizer_config.json, else
  /// special_tokens_map.json, else ids from config.json, where these exist. Throws
  /// Error(not_found) when tokenizer.json is missing. `added` are further tokens, numbered after
  /// those of the files, as transformers' add_tokens does.
  static Tokenizer from_directory(const std::filesystem::path& directory,
                                  const std::vector<std::string>& added = {});

  /// Reads one tokenizer.json; bos, eos, pad and unk stay unknown.
  static Tokenizer from_file(const std::filesystem::path& file);

  /// Merging takes about 40 bytes for each byte of a word. Without a pre-tokenizer that cuts (Llama
  /// 2, Mistral, Gemma) a whole text between two added tokens is one word.
  static constexpr std::size_t kMaxWordBytes = std::size_t{5} << 18;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Token ids of `text`. Names of special tokens inside the text become these tokens.
  /// `add_special_tokens` applies the post-processor (a BOS where the file asks for one).
  /// Throws Error(malformed) when `text` is not UTF-8, holds a word (a stretch that the
  /// pre-tokenizer does not cut) of more than kMaxWordBytes, or a character that no token covers
  /// where a Unigram model has no unknown token.
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens = true) const;

  /// The tokens of encode(), in order and some thousand at a time: a text of any length takes no
  /// memory for tokens that the caller does not keep. A part is valid during its call only.
  /// `threads` (0: all) share the work on long texts where the pre-tokenizer is one of the usual
  /// byte-level ones; parts come on the calling thread, and are the same tokens for any number.
  void encode_parts(std::string_view text, bool add_special_tokens,
                    const std::function<void(std::span<const TokenId>)>& receive,
                    int threads = 1) const;

  /// encode() of many documents on up to `threads` threads (0: all). Slot i holds document i.
  std::vector<std::vector<TokenId>> encode_batch(const std::vector<std::string_view>& texts,
                                                 bool add_special_tokens = true,
                                                 int threads = 0) const;

  /// Text of a token sequence; ids outside the vocabulary are skipped. Bytes that are not UTF-8
  /// become U+FFFD: one for each maximal invalid part with the decoder ByteLevel, one for each byte
  /// of the row with ByteFallback.
  std::string decode(const std::vector<TokenId>& ids, bool skip_special_tokens = true) const;

  /// Number of tokens, of the model's vocabulary and added ones together. Ids may lie above it
  /// where the file leaves holes between them.
  std::size_t vocab_size() const;

  /// Id of a token by its spelling in the file (byte-level alphabet: "Ġthe") or by the content of
  /// an added token; nullopt when there is none.
  std::optional<TokenId> token_to_id(std::string_view token) const;

  /// Spelling of a token in the file, nullopt for an id without one.
  std::optional<std::string> id_to_token(TokenId id) const;

  bool is_special(TokenId id) const;         ///< an added token marked `special`
  std::vector<TokenId> special_ids() const;  ///< ascending
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  std::optional<TokenId> pad_id() const;
  std::string bos_token() const;  ///< spelling, empty when unknown
  std::string eos_token() const;  ///< spelling, empty when unknown
  std::string pad_token() const;  ///< spelling, empty when unknown

 private:
  friend class TokenStream;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Text of a growing token sequence. The pieces together equal decode() of the whole sequence; text
/// that a later token may change is held back, like a character whose bytes are not complete yet.
class TokenStream {
 public:
  /// `tokenizer` must outlive the stream.
  explicit TokenStream(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~TokenStream();

  /// Text that became certain with this token, possibly empty.
  std::string push(TokenId id);

  /// What was held back, as decode() would render it; the stream is then empty again.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<text::Decoding> decoding_;
};

}  // namespace lora
