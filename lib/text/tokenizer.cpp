#include "lora/text/tokenizer.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/component.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace lora {
namespace {

using namespace text;

// The search for added tokens tries one at every byte of a text.
constexpr std::size_t kLongestAddedToken = 1024;
// The token itself, its place by content, and its copy in a matcher.
constexpr std::uint64_t kAddedTokenBytes = 384;

const Json& member_or_null(const Json& document, std::string_view key) {
  static const Json null;
  const Json* value = document.find(key);
  return value ? *value : null;
}

BpeVocabulary vocabulary_of(TokenizerFile& file, const std::string& context) {
  const Json& document = member_or_null(file.rest, "model");
  if (!document.is_object()) throw malformed_tokenizer("it has no \"model\" object", context);
  // Files from before 0.6 have no type; every other model that old differs in its vocabulary.
  const Json* type = document.find("type");
  const std::string name = type && type->as_string() ? *type->as_string() : "BPE";
  if (name != "BPE") throw unsupported_component("model", name, context);
  const auto flag = [&](std::string_view key) {
    const Json* value = document.find(key);
    return value && value->as_bool().value_or(false);
  };
  if (flag("byte_fallback"))
    throw unsupported_component("model", "BPE with byte_fallback", context);
  if (const Json* dropout = document.find("dropout"))
    if (dropout->as_double().value_or(0) != 0)
      throw unsupported_component("model", "BPE with dropout", context);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* value = document.find(key);
    if (value && value->as_string() && !value->as_string()->empty())
      throw unsupported_component("model", std::string("BPE with ") + key, context);
  }
  BpeVocabulary vocabulary;
  vocabulary.tables = std::move(file.tables);
  const Json* unk = document.find("unk_token");
  if (unk && unk->as_string()) vocabulary.unk_token = *unk->as_string();
  vocabulary.fuse_unk = flag("fuse_unk");
  vocabulary.ignore_merges = flag("ignore_merges");
  return vocabulary;
}

void require_byte_level_decoder(const Json& document, const std::string& context) {
  if (document.is_null()) throw unsupported_component("decoder", "null", context);
  const Component part(document, "decoder", context);
  if (part.type() == "Sequence") {
    const JsonArray& steps = part.array("decoders");
    if (steps.empty()) throw unsupported_component("decoder", "Sequence without steps", context);
    require_byte_level_decoder(steps.front(), context);
    for (std::size_t i = 1; i < steps.size(); ++i)
      if (const Component step(steps[i], "decoder", context); step.type() != "Fuse")
        throw unsupported_component("decoder", step.type() + " after ByteLevel", context);
  } else if (part.type() != "ByteLevel") {
    throw unsupported_component("decoder", part.type(), context);
  }
}

std::vector<AddedToken> added_tokens_of(const Json& document, const std::string& context) {
  std::vector<AddedToken> tokens;
  const Json& list = member_or_null(document, "added_tokens");
  if (list.is_null()) return tokens;
  if (!list.is_array()) throw malformed_tokenizer("\"added_tokens\" is not an array", context);
  for (const Json& entry : *list.as_array()) {
    AddedToken token;
    const Json* content = entry.find("content");
    const Json* id = entry.find("id");
    if (!content || !content->as_string() || !id || !id->as_int())
      throw malformed_tokenizer("an added token lacks \"id\" or \"content\"", context);
    token.id = *id->as_int();
    token.content = *content->as_string();
    const auto flag = [&](std::string_view name) {
      const Json* value = entry.find(name);
      return value && value->as_bool().value_or(false);
    };
    token.single_word = flag("single_word");
    token.lstrip = flag("lstrip");
    token.rstrip = flag("rstrip");
    token.normalized = flag("normalized");
    token.special = flag("special");
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

namespace {

// Tokens on their way to the caller, who takes them some at a time.
struct TokenParts {
  static constexpr std::size_t kFull = 4096;

  void add(TokenId id) {
    ids.push_back(id);
    hand_over_full();
  }
  void hand_over_full() {
    if (ids.size() >= kFull) hand_over();
  }
  void hand_over() {
    if (!ids.empty()) receive(ids);
    ids.clear();
  }

  BpeCache& cache;
  const std::function<void(std::span<const TokenId>)>& receive;
  std::vector<TokenId> ids;
};

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerFile file, const std::string& file_name, const std::vector<AddedToken>& extra)
      : context(file_name),
        vocabulary(vocabulary_of(file, context)),
        bpe(vocabulary, context),
        normalizer(member_or_null(file.rest, "normalizer"), context),
        pre_tokenizer(member_or_null(file.rest, "pre_tokenizer"), context),
        post_processor(member_or_null(file.rest, "post_processor"), context) {
    require_byte_level_decoder(member_or_null(file.rest, "decoder"), context);
    for (AddedToken& token : added_tokens_of(file.rest, context))
      add(std::move(token), file.budget);
    for (const AddedToken& token : extra)
      if (!added_places.contains(token.content)) add(token, file.budget);
    for (const AddedToken& token : added) {
      if (!token.normalized) {
        raw_tokens.add(token, token.content);
        continue;
      }
      const std::string normal = normalizer.apply(token.content);
      spend_memory_of_tokenizer(file.budget, 4 * normal.size(), context);
      normalized_tokens.add(token, normal);
    }
    raw_tokens.index();
    normalized_tokens.index();
    index_spellings(file.budget);
    require_tokens(post_processor.before());
    require_tokens(post_processor.after());
  }

  // The reference adds whatever id the file names, and the model fails on it later.
  void require_tokens(const std::vector<std::int64_t>& ids) const {
    for (const std::int64_t id : ids)
      if (!is_token(id))
        throw malformed_tokenizer("post_processor adds the id " + std::to_string(id) +
                                      ", expected one that the vocabulary or an added token has",
                                  context);
  }

  // A hole between the ids has no spelling at all, which is not an empty one.
  bool is_token(TokenId id) const {
    return id >= 0 && id < static_cast<TokenId>(spellings.size()) &&
           spellings[static_cast<std::size_t>(id)].data() != nullptr;
  }

  // A token that the model knows has the model's id. Others are numbered after the vocabulary, as
  // the reference does whatever the file says, so a file in disorder reads the same there and here.
  void add(AddedToken token, AllocationBudget& budget) {
    if (token.content.empty()) return;
    if (token.content.size() > kLongestAddedToken)
      throw malformed_tokenizer("an added token has " + std::to_string(token.content.size()) +
                                    " bytes, expected at most " +
                                    std::to_string(kLongestAddedToken),
                                context);
    spend_memory_of_tokenizer(budget, kAddedTokenBytes + 4 * token.content.size(), context);
    const std::uint32_t known = bpe.find(token.content);
    const auto [place, is_new] = added_places.try_emplace(token.content, added.size());
    if (known != TokenIndex::kNone) {
      token.id = known;
    } else if (!is_new) {
      token.id = added[place->second].id;
    } else {
      token.id =
          std::max(static_cast<std::int64_t>(vocabulary.tables.tokens.size()), largest_added + 1);
    }
    largest_added = std::max(largest_added, token.id);
    if (is_new) {
      added.push_back(std::move(token));
    } else {
      added[place->second] = std::move(token);
    }
  }

  void index_spellings(AllocationBudget& budget) {
    const TokenTables& tables = vocabulary.tables;
    std::int64_t last = largest_added;
    for (const TokenTables::Token& token : tables.tokens) last = std::max(last, token.id);
    model_size = tables.tokens.size();
    // The tokens themselves are paid for, holes between their ids are not.
    const auto count = static_cast<std::size_t>(last + 1);
    if (count > model_size)
      spend_memory_of_tokenizer(budget, (count - model_size) * (sizeof(std::string_view) + 1),
                                context);
    vocabulary.tables.merges = {};
    spellings.resize(count);
    special.resize(count);
    for (const TokenTables::Token& token : tables.tokens)
      spellings[static_cast<std::size_t>(token.id)] = tables.spelling(token);
    vocabulary.tables.tokens = {};
    total_size = model_size;
    for (const AddedToken& token : added) {
      if (bpe.find(token.content) == TokenIndex::kNone) ++total_size;
      // The reference names and decodes such a token by its normalized form.
      spellings[static_cast<std::size_t>(token.id)] =
          token.normalized ? normalized_names.emplace_back(normalizer.apply(token.content))
                           : token.content;
      special[static_cast<std::size_t>(token.id)] = token.special;
    }
  }

  void encode_text(std::string_view piece, TokenParts& out) const {
    struct Target {
      const Bpe& bpe;
      TokenParts& out;
    } target{bpe, out};
    pre_tokenizer.split(piece, {&target, [](void* context_pointer, std::string_view word) {
                                  const auto& to = *static_cast<const Target*>(context_pointer);
                                  to.bpe.encode(word, to.out.cache, to.out.ids);
                                  to.out.hand_over_full();
                                }});
  }

  void encode_normalized(std::string_view piece, TokenParts& out) const {
    if (normalized_tokens.empty()) {
      encode_text(piece, out);
      return;
    }
    normalized_tokens.split(piece, [&](const TextSpan& span) {
      if (span.id >= 0) {
        out.add(span.id);
      } else {
        encode_text(piece.substr(span.begin, span.end - span.begin), out);
      }
    });
  }

  void encode(std::string_view input, TokenParts& out) const {
    raw_tokens.split(input, [&](const TextSpan& span) {
      const std::string_view piece = input.substr(span.begin, span.end - span.begin);
      if (span.id >= 0) {
        out.add(span.id);
      } else if (normalizer.is_identity()) {
        encode_normalized(piece, out);
      } else {
        encode_normalized(normalizer.apply(std::string(piece)), out);
      }
    });
  }

  // Bytes a token stands for; an added token whose content is outside the alphabet is its content.
  void append_bytes(TokenId id, bool skip_special_tokens, std::string& bytes) const {
    if (!is_token(id)) return;
    const auto index = static_cast<std::size_t>(id);
    if (skip_special_tokens && special[index]) return;
    const auto raw = bytes_of_spelling(spellings[index]);
    bytes += raw ? std::string_view(*raw) : spellings[index];
  }

  std::unique_ptr<BpeCache> borrow_cache() const {
    const std::lock_guard lock(cache_mutex);
    if (caches.empty()) return std::make_unique<BpeCache>();
    auto cache = std::move(caches.back());
    caches.pop_back();
    return cache;
  }

  void return_cache(std::unique_ptr<BpeCache> cache) const {
    const std::lock_guard lock(cache_mutex);
    caches.push_back(std::move(cache));
  }

  std::optional<TokenId> id_of_name(const std::string& name) const {
    const auto found = added_places.find(name);
    if (found != added_places.end()) return added[found->second].id;
    const std::uint32_t id = bpe.find(name);
    return id == TokenIndex::kNone ? std::nullopt : std::optional<TokenId>(id);
  }

  std::string name_of_id(const std::optional<TokenId>& id) const {
    return id && is_token(*id) ? std::string(spellings[static_cast<std::size_t>(*id)])
                               : std::string();
  }

  void set_special(const SpecialTokens& tokens) {
    const auto resolve = [&](const std::string& name, const std::optional<TokenId>& id) {
      return name.empty() ? id : id_of_name(name);
    };
    bos = resolve(tokens.bos, tokens.bos_id);
    eos = resolve(tokens.eos, tokens.eos_id);
    pad = resolve(tokens.pad, tokens.pad_id);
  }

  std::string context;
  BpeVocabulary vocabulary;  // only the text once indexed
  Bpe bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  std::vector<AddedToken> added;
  std::map<std::string, std::size_t, std::less<>> added_places;  // into `added`
  std::int64_t largest_added = -1;
  std::deque<std::string> normalized_names;
  AddedTokenMatcher raw_tokens;
  AddedTokenMatcher normalized_tokens;
  std::vector<std::string_view> spellings;  // by id, empty for holes; into the three above
  std::vector<char> special;                // by id
  std::size_t model_size = 0;
  std::size_t total_size = 0;
  std::optional<TokenId> bos, eos, pad;

  mutable std::mutex cache_mutex;
  mutable std::vector<std::unique_ptr<BpeCache>> caches;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_file(const std::filesystem::path& file) {
  return Tokenizer(
      std::make_unique<Impl>(read_tokenizer_file(file), file.string(), std::vector<AddedToken>{}));
}

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory) {
  const auto file = directory / "tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    throw Error(ErrorKind::not_found,
                "cannot load a tokenizer from " + directory.string() + ": it has no tokenizer.json")
        .in_file(file.string());
  const SpecialTokens special = read_special_tokens(directory);
  auto impl = std::make_unique<Impl>(read_tokenizer_file(file), file.string(), special.added);
  impl->set_special(special);
  return Tokenizer(std::move(impl));
}

void Tokenizer::encode_parts(std::string_view text, bool add_special_tokens,
                             const std::function<void(std::span<const TokenId>)>& receive) const {
  if (const std::size_t invalid = find_invalid_utf8(text); invalid != std::string_view::npos)
    throw Error(ErrorKind::malformed,
                "cannot tokenize text: byte " + std::to_string(invalid) + " is not UTF-8");
  auto cache = impl_->borrow_cache();
  TokenParts parts{*cache, receive, {}};
  if (add_special_tokens) parts.ids = impl_->post_processor.before();
  impl_->encode(text, parts);
  if (add_special_tokens) {
    const auto& after = impl_->post_processor.after();
    parts.ids.insert(parts.ids.end(), after.begin(), after.end());
  }
  parts.hand_over();
  impl_->return_cache(std::move(cache));
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
  std::string bytes;
  for (const TokenId id : ids) impl_->append_bytes(id, skip_special_tokens, bytes);
  std::string text;
  append_lossy(text, bytes, false);
  return text;
}

std::size_t Tokenizer::vocab_size() const { return impl_->total_size; }

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->id_of_name(std::string(token));
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

TokenStream::TokenStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string TokenStream::push(TokenId id) {
  tokenizer_.impl_->append_bytes(id, skip_special_tokens_, pending_);
  std::string text;
  const std::size_t consumed = append_lossy(text, pending_, true);
  pending_.erase(0, consumed);
  return text;
}

std::string TokenStream::finish() {
  std::string text;
  append_lossy(text, pending_, false);
  pending_.clear();
  return text;
}

}  // namespace lora
