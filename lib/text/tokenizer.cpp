#include "lora/text/tokenizer.h"

#include <utility>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "text/decoder.h"
#include "text/special_tokens.h"
#include "text/tokenizer_file.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace lora {

using namespace text;

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_file(const std::filesystem::path& file) {
  return Tokenizer(
      std::make_unique<Impl>(read_tokenizer_file(file), file.string(), std::vector<AddedToken>{}));
}

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory,
                                    const std::vector<std::string>& added) {
  const auto file = directory / "tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    throw Error(ErrorKind::not_found,
                "cannot load a tokenizer from " + directory.string() + ": it has no tokenizer.json")
        .in_file(file.string());
  SpecialTokens special = read_special_tokens(directory);
  for (const std::string& content : added) {
    AddedToken token;
    token.content = content;
    token.normalized = true;
    special.added.push_back(std::move(token));
  }
  auto impl = std::make_unique<Impl>(read_tokenizer_file(file), file.string(), special.added);
  impl->set_special(special);
  return Tokenizer(std::move(impl));
}

void Tokenizer::encode_parts(std::string_view text, bool add_special_tokens,
                             const std::function<void(std::span<const TokenId>)>& receive,
                             int threads) const {
  if (const std::size_t invalid = find_invalid_utf8(text); invalid != std::string_view::npos)
    throw Error(ErrorKind::malformed,
                "cannot tokenize text: byte " + std::to_string(invalid) + " is not UTF-8");
  impl_->encode(text, add_special_tokens, threads, receive);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 8);
  encode_parts(text, add_special_tokens, [&](std::span<const TokenId> part) {
    ids.insert(ids.end(), part.begin(), part.end());
  });
  return ids;
}

std::vector<std::vector<TokenId>> Tokenizer::encode_batch(
    const std::vector<std::string_view>& texts, bool add_special_tokens, int threads) const {
  std::vector<std::vector<TokenId>> out(texts.size());
  parallel_for(texts.size(), threads,
               [&](std::size_t i) { out[i] = encode(texts[i], add_special_tokens); });
  return out;
}

std::string Tokenizer::decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const {
  Decoding decoding(impl_->decoder);
  for (const TokenId id : ids) impl_->decode_into(decoding, id, skip_special_tokens);
  decoding.finish();
  return decoding.take();
}

std::size_t Tokenizer::vocab_size() const { return impl_->total_size; }

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->id_of_name(token);
}

std::optional<std::string> Tokenizer::id_to_token(TokenId id) const {
  return impl_->is_token(id) ? std::optional(impl_->name_of_id(id)) : std::nullopt;
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < static_cast<TokenId>(impl_->special.size()) &&
         impl_->special[static_cast<std::size_t>(id)] != 0;
}

std::vector<TokenId> Tokenizer::special_ids() const {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < impl_->special.size(); ++i)
    if (impl_->special[i]) ids.push_back(static_cast<TokenId>(i));
  return ids;
}

std::optional<TokenId> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<TokenId> Tokenizer::pad_id() const { return impl_->pad; }
std::string Tokenizer::bos_token() const { return impl_->name_of_id(impl_->bos); }
std::string Tokenizer::eos_token() const { return impl_->name_of_id(impl_->eos); }
std::string Tokenizer::pad_token() const { return impl_->name_of_id(impl_->pad); }

TokenStream::TokenStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      decoding_(std::make_unique<Decoding>(tokenizer.impl_->decoder)) {}

TokenStream::~TokenStream() = default;

std::string TokenStream::push(TokenId id) {
  tokenizer_.impl_->decode_into(*decoding_, id, skip_special_tokens_);
  return decoding_->take();
}

std::string TokenStream::finish() {
  decoding_->finish();
  std::string text = decoding_->take();
  decoding_ = std::make_unique<Decoding>(tokenizer_.impl_->decoder);
  return text;
}

}  // namespace lora
