#include "text/token_model.h"

#include <optional>
#include <utility>

#include "format/in_quotes.h"
#include "lora/base/error.h"
#include "lora/text/tokenizer.h"
#include "text/bpe.h"
#include "text/component.h"
#include "text/unigram.h"
#include "text/word_piece.h"

namespace lora::text {
namespace {

// Reads members of the model, whose type may be left out, so it is no Component.
class ModelFields {
 public:
  ModelFields(const TokenizerFile& file, const std::string& context)
      : document_(file.rest.find("model")), context_(context) {
    if (document_ == nullptr || !document_->is_object())
      throw malformed_tokenizer("it has no \"model\" object", context);
  }

  const Json* find(std::string_view key) const {
    const Json* value = document_->find(key);
    return value != nullptr && value->is_null() ? nullptr : value;
  }

  bool flag(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) return false;
    if (!value->as_bool()) throw wrong(key, "a boolean");
    return *value->as_bool();
  }

  std::string text(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) return {};
    if (value->as_string() == nullptr) throw wrong(key, "a string");
    return *value->as_string();
  }

  std::optional<std::size_t> count(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto number = value->as_int();
    if (!number || *number < 0) throw wrong(key, "an integer of at least 0");
    return static_cast<std::size_t>(*number);
  }

 private:
  Error wrong(std::string_view key, std::string_view expected) const {
    return malformed_tokenizer("model has \"" + std::string(key) + "\" " +
                                   std::string(document_->find(key)->type_name()) + ", expected " +
                                   std::string(expected),
                               context_);
  }

  const Json* document_;
  const std::string& context_;
};

BpeOptions bpe_options(const ModelFields& model, const std::string& context) {
  if (const Json* dropout = model.find("dropout"); dropout && dropout->as_double().value_or(0) != 0)
    throw unsupported_component("model", "BPE with dropout", context);
  BpeOptions options;
  options.unk_token = model.text("unk_token");
  options.prefix = model.text("continuing_subword_prefix");
  options.suffix = model.text("end_of_word_suffix");
  options.fuse_unk = model.flag("fuse_unk");
  options.byte_fallback = model.flag("byte_fallback");
  options.ignore_merges = model.flag("ignore_merges");
  return options;
}

}  // namespace

ModelKind model_kind(const TokenizerFile& file, const std::string& context) {
  const ModelFields model(file, context);
  const std::string name = model.text("type");
  // Files from before 0.6 have no type.
  if (name == "Unigram" || (name.empty() && file.vocabulary_is_list)) return ModelKind::unigram;
  if (name == "WordPiece" || (name.empty() && model.find("max_input_chars_per_word")))
    return ModelKind::word_piece;
  if (name == "BPE" || name.empty()) return ModelKind::bpe;
  throw unsupported_component("model", name, context);
}

bool takes_bytes(const TokenizerFile& file, const std::string& context) {
  if (model_kind(file, context) != ModelKind::bpe) return false;
  const BpeOptions options = bpe_options(ModelFields(file, context), context);
  return options.prefix.empty() && options.suffix.empty() && !options.byte_fallback;
}

std::unique_ptr<TokenModel> make_model(TokenizerFile& file, bool pieces_are_bytes,
                                       const std::string& context) {
  const ModelFields model(file, context);
  const ModelKind kind = model_kind(file, context);
  if (file.vocabulary_is_list != (kind == ModelKind::unigram))
    throw malformed_tokenizer(std::string("the vocabulary is ") +
                                  (file.vocabulary_is_list ? "a list" : "a map") +
                                  ", which does not fit the type of the model",
                              context);
  if (kind == ModelKind::bpe) {
    BpeOptions options = bpe_options(model, context);
    options.pieces_are_bytes = pieces_are_bytes;
    return std::make_unique<Bpe>(file.tables, std::move(options), context);
  }
  if (kind == ModelKind::word_piece) {
    WordPieceOptions options;
    options.unk_token = model.text("unk_token");
    options.prefix = model.text("continuing_subword_prefix");
    options.most_characters = model.count("max_input_chars_per_word").value_or(100);
    return std::make_unique<WordPiece>(file.tables, std::move(options), file.budget, context);
  }
  return std::make_unique<Unigram>(file.tables, model.count("unk_id"), model.flag("byte_fallback"),
                                   file.budget, context);
}

void require_short_piece(std::string_view piece) {
  if (piece.size() > Tokenizer::kMaxWordBytes)
    throw Error(ErrorKind::malformed,
                "cannot tokenize text: the word that starts with " +
                    in_quotes(piece.substr(0, 40)) + " has " + std::to_string(piece.size()) +
                    " bytes, expected at most " + std::to_string(Tokenizer::kMaxWordBytes) +
                    " without a place to cut it");
}

TokenIndex index_of(const TokenTables& tables, const std::string& context) {
  TokenIndex index;
  std::size_t bytes = 0;
  for (const TokenTables::Token& token : tables.tokens) bytes += token.size;
  index.reserve(tables.tokens.size(), bytes);
  for (const TokenTables::Token& token : tables.tokens) {
    const std::string_view spelling = tables.spelling(token);
    if (token.id < 0 || token.id > kMaxTokenId)
      throw malformed_tokenizer("token " + in_quotes(spelling) + " has id " +
                                    std::to_string(token.id) + ", expected 0 to " +
                                    std::to_string(kMaxTokenId),
                                context);
    if (!index.insert(spelling, static_cast<std::uint32_t>(token.id)))
      throw malformed_tokenizer("token " + in_quotes(spelling) + " is in the vocabulary twice",
                                context);
  }
  return index;
}

std::vector<std::uint32_t> byte_tokens(const TokenIndex& index) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::vector<std::uint32_t> ids;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string name = std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + '>';
    ids.push_back(index.find(name));
  }
  return ids;
}

}  // namespace lora::text
