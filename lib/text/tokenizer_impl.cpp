#include "text/tokenizer_impl.h"

#include <algorithm>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora {

using namespace text;

namespace {

const Json& member_or_null(const TokenizerFile& file, std::string_view key) {
  static const Json null;
  const Json* value = file.rest.find(key);
  return value ? *value : null;
}

constexpr std::size_t kPart = std::size_t{1} << 18;

// At least kPart bytes, up to a place where PreTokenizer::cuts_before_blanks.
std::size_t end_of_part(std::string_view text) {
  for (std::size_t i = kPart; i < text.size(); ++i) {
    const char before = text[i - 1];
    if (text[i] == ' ' && ((before >= 'a' && before <= 'z') || (before >= 'A' && before <= 'Z')))
      return i;
  }
  return text.size();
}

}  // namespace

// Tokens on their way to the caller, who takes them some at a time.
struct Tokenizer::Impl::Parts {
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

  PieceCache& cache;
  const Receiver& receive;
  std::vector<TokenId> ids;
};

Tokenizer::Impl::Impl(TokenizerFile file, const std::string& file_name,
                      const std::vector<AddedToken>& extra)
    : context(file_name),
      pre_tokenizer(member_or_null(file, "pre_tokenizer"), takes_bytes(file, context), context),
      model(make_model(file, pre_tokenizer.gives_bytes(), context)),
      normalizer(member_or_null(file, "normalizer"), context),
      post_processor(member_or_null(file, "post_processor"), context),
      decoder(member_or_null(file, "decoder"), context),
      added({member_or_null(file, "added_tokens"), extra, *model, file.tables.tokens.size(),
             normalizer, context},
            file.budget) {
  index_spellings(file);
  require_tokens(post_processor.before());
  require_tokens(post_processor.after());
}

// The reference adds whatever id the file names, and the model fails on it later.
void Tokenizer::Impl::require_tokens(const std::vector<std::int64_t>& ids) const {
  for (const std::int64_t id : ids)
    if (!is_token(id))
      throw malformed_tokenizer("post_processor adds the id " + std::to_string(id) +
                                    ", expected one that the vocabulary or an added token has",
                                context);
}

bool Tokenizer::Impl::is_token(TokenId id) const {
  return id >= 0 && id < static_cast<TokenId>(spellings.size()) &&
         spellings[static_cast<std::size_t>(id)].data() != nullptr;
}

void Tokenizer::Impl::index_spellings(TokenizerFile& file) {
  TokenTables& tables = file.tables;
  tables.merges = {};
  tables.scores = {};
  model_text = std::move(tables.text);
  std::int64_t last = added.largest_id();
  for (const TokenTables::Token& token : tables.tokens) last = std::max(last, token.id);
  const std::size_t model_size = tables.tokens.size();
  // The tokens themselves are paid for, holes between their ids are not.
  const auto count = static_cast<std::size_t>(last + 1);
  if (count > model_size)
    spend_memory_of_tokenizer(file.budget, (count - model_size) * (sizeof(std::string_view) + 2),
                              context);
  spellings.resize(count);
  special.resize(count);
  skipped.resize(count);
  for (const TokenTables::Token& token : tables.tokens)
    spellings[static_cast<std::size_t>(token.id)] =
        std::string_view(model_text).substr(token.offset, token.size);
  total_size = model_size;
  for (std::size_t i = 0; i < added.tokens().size(); ++i) {
    const AddedToken& token = added.tokens()[i];
    const auto id = static_cast<std::size_t>(token.id);
    if (model->find(token.content) == TokenIndex::kNone) ++total_size;
    spellings[id] = added.spelling(i);
    special[id] = token.special;
    skipped[id] = added.is_special_content(added.spelling(i));
  }
}

void Tokenizer::Impl::encode_text(const Piece& piece, Parts& out) const {
  struct Target {
    const TokenModel& model;
    Parts& out;
  } target{*model, out};
  pre_tokenizer.split(piece, {&target, [](void* context_pointer, const Piece& word) {
                                const auto& to = *static_cast<const Target*>(context_pointer);
                                to.out.cache.encode(to.model, word.text, to.out.ids);
                                to.out.hand_over_full();
                              }});
}

// Some parts at a time on each thread, so that memory does not grow with the text.
void Tokenizer::Impl::encode_long(Piece piece, int threads, const Receiver& receive) const {
  constexpr std::size_t kPartsOfThread = 4;
  const auto most = kPartsOfThread * static_cast<std::size_t>(threads);
  std::vector<Piece> parts;
  std::vector<std::vector<TokenId>> ids;
  while (!piece.text.empty()) {
    parts.clear();
    while (parts.size() < most && !piece.text.empty()) {
      const std::size_t end = end_of_part(piece.text);
      parts.push_back(piece.part(0, end));
      piece = piece.part(end, piece.text.size());
    }
    ids.assign(parts.size(), {});
    parallel_for(parts.size(), threads, [&](std::size_t i) {
      auto cache = borrow_cache();
      const Receiver keep = [&](std::span<const TokenId> some) {
        ids[i].insert(ids[i].end(), some.begin(), some.end());
      };
      Parts out{*cache, keep, {}};
      encode_text(parts[i], out);
      out.hand_over();
      return_cache(std::move(cache));
    });
    for (const auto& some : ids) receive(some);
  }
}

// `start` bytes are made of the first character of the whole input.
void Tokenizer::Impl::encode_normalized(std::string_view piece, std::size_t start,
                                        Parts& out) const {
  if (piece.empty()) return;
  if (added.normalized().empty()) {
    encode_text({piece, start}, out);
    return;
  }
  added.normalized().split(piece, [&](const TextSpan& span) {
    if (span.id >= 0) {
      out.add(span.id);
    } else {
      encode_text(Piece{piece, start}.part(span.begin, span.end), out);
    }
  });
}

void Tokenizer::Impl::encode(std::string_view input, bool add_special_tokens, int threads,
                             const Receiver& receive) const {
  if (threads == 0) threads = available_threads();
  const bool may_be_cut = threads > 1 && normalizer.is_identity() && added.normalized().empty() &&
                          pre_tokenizer.cuts_before_blanks();
  auto cache = borrow_cache();
  Parts out{*cache, receive, {}};
  if (add_special_tokens) out.ids = post_processor.before();
  added.raw().split(input, [&](const TextSpan& span) {
    const std::string_view piece = input.substr(span.begin, span.end - span.begin);
    if (span.id >= 0) {
      out.add(span.id);
      return;
    }
    const std::size_t start =
        span.begin == 0 ? utf8_length(static_cast<unsigned char>(piece.front())) : 0;
    if (may_be_cut && piece.size() > 2 * kPart) {
      out.hand_over();
      encode_long({piece, start}, threads, receive);
    } else if (normalizer.is_identity()) {
      encode_normalized(piece, start, out);
    } else {
      NormalText normal{std::string(piece), start};
      normalizer.apply(normal);
      encode_normalized(normal.text, normal.start, out);
    }
  });
  if (add_special_tokens) {
    const auto& after = post_processor.after();
    out.ids.insert(out.ids.end(), after.begin(), after.end());
  }
  out.hand_over();
  return_cache(std::move(cache));
}

void Tokenizer::Impl::decode_into(Decoding& decoding, TokenId id, bool skip_special_tokens) const {
  if (!is_token(id)) return;
  const auto index = static_cast<std::size_t>(id);
  if (skip_special_tokens && skipped[index]) return;
  decoding.push(spellings[index]);
}

std::unique_ptr<PieceCache> Tokenizer::Impl::borrow_cache() const {
  const std::lock_guard lock(cache_mutex_);
  if (caches_.empty()) return std::make_unique<PieceCache>();
  auto cache = std::move(caches_.back());
  caches_.pop_back();
  return cache;
}

void Tokenizer::Impl::return_cache(std::unique_ptr<PieceCache> cache) const {
  const std::lock_guard lock(cache_mutex_);
  caches_.push_back(std::move(cache));
}

std::optional<TokenId> Tokenizer::Impl::id_of_name(std::string_view name) const {
  if (const auto id = added.find(name)) return id;
  const std::uint32_t id = model->find(name);
  return id == TokenIndex::kNone ? std::nullopt : std::optional<TokenId>(id);
}

std::string Tokenizer::Impl::name_of_id(const std::optional<TokenId>& id) const {
  return id && is_token(*id) ? std::string(spellings[static_cast<std::size_t>(*id)])
                             : std::string();
}

void Tokenizer::Impl::set_special(const SpecialTokens& tokens) {
  const auto resolve = [&](const std::string& name, const std::optional<TokenId>& id) {
    return name.empty() ? id : id_of_name(name);
  };
  bos = resolve(tokens.bos, tokens.bos_id);
  eos = resolve(tokens.eos, tokens.eos_id);
  pad = resolve(tokens.pad, tokens.pad_id);
}

}  // namespace lora
