#include "engine/train/added_tokens.h"

#include <algorithm>
#include <set>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/grow_vocabulary.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/format/json.h"
#include "lora/text/tokenizer.h"

namespace lora::engine {
namespace {

constexpr const char* kField = "trainable_token_indices";

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void check_texts(const std::vector<std::string>& texts, const Tokenizer& tokenizer) {
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    if (text.empty()) throw Error(ErrorKind::usage, "--add-tokens names an empty token");
    if (!seen.insert(text).second)
      throw Error(ErrorKind::usage, "--add-tokens names \"" + text + "\" twice, expected it once");
    if (const auto id = tokenizer.token_to_id(text))
      throw Error(ErrorKind::usage, "--add-tokens names \"" + text +
                                        "\", which the tokenizer knows as token " +
                                        std::to_string(*id))
          .with_hint("train the row it has: --trainable-tokens " + std::to_string(*id));
  }
}

JsonArray with_ids(const Json* listed, const std::vector<std::int64_t>& ids) {
  JsonArray all;
  if (listed != nullptr && listed->is_array()) all = *listed->as_array();
  for (const std::int64_t id : ids) all.emplace_back(id);
  return all;
}

std::string last_component(const std::string& path) { return path.substr(path.rfind('.') + 1); }

Json entry_of(const std::string& text, std::int64_t id) {
  return JsonObject{{"id", id},        {"content", text}, {"single_word", false},
                    {"lstrip", false}, {"rstrip", false}, {"normalized", true},
                    {"special", false}};
}

}  // namespace

AddedTokens add_tokens(const Checkpoint& base, const std::vector<std::string>& texts) {
  AddedTokens tokens;
  if (texts.empty()) return tokens;
  const VocabularyTables tables = vocabulary_tables(base);
  check_texts(texts, Tokenizer::from_directory(base.directory));
  const Tokenizer tokenizer = Tokenizer::from_directory(base.directory, texts);
  tokens.texts = texts;
  for (const std::string& text : texts) tokens.ids.push_back(tokenizer.token_to_id(text).value());
  const std::int64_t last = *std::max_element(tokens.ids.begin(), tokens.ids.end());
  if (last >= tables.rows)
    tokens.base = std::make_shared<const Checkpoint>(grow_vocabulary(base, last + 1 - tables.rows));
  return tokens;
}

void train_added_tokens(AdapterConfig& config, const AddedTokens& tokens, const Checkpoint& base) {
  if (tokens.ids.empty()) return;
  const VocabularyTables tables = vocabulary_tables(base);
  const Json* named = config.other.find(kField);
  JsonArray rows = with_ids(named, tokens.ids);
  if (tables.head.empty())
    config.other[kField] = std::move(rows);
  else
    config.other[kField] = JsonObject{{last_component(tables.embedding), std::move(rows)},
                                      {last_component(tables.head), with_ids(nullptr, tokens.ids)}};
}

void write_tokenizer(AtomicDirectory& directory, const AddedTokens& tokens,
                     const std::filesystem::path& base_directory) {
  if (tokens.ids.empty()) return;
  const auto file = MappedFile::open(base_directory / kTokenizerName);
  Json document = parse_json(text_of(*file), file->path().string());
  Json& added = (*document.as_object())["added_tokens"];
  if (!added.is_array()) added = JsonArray{};
  for (std::size_t i = 0; i < tokens.ids.size(); ++i)
    added.as_array()->push_back(entry_of(tokens.texts[i], tokens.ids[i]));
  directory.write(kTokenizerName, dump_json(document, kPrettyStyle));
  for (const char* name : {kTokenizerConfigName, "special_tokens_map.json", kChatTemplateName}) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(base_directory / name, ignored)) continue;
    directory.write(name, text_of(*MappedFile::open(base_directory / name)));
  }
}

}  // namespace lora::engine
