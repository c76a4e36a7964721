// tokenizer.json and its companions from the metadata of a GGUF file: byte-level BPE, whose
// splitting pattern the file names, and BPE with SentencePiece's marks, as transformers 5.23 makes
// it of model "llama".
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include "checkpoint/gguf_base.h"
#include "checkpoint/gguf_merges.h"
#include "format/utf8.h"
#include "lora/base/error.h"

namespace lora {
namespace {

// How llama.cpp marks tokens.
constexpr std::int64_t kControl = 3;
constexpr std::int64_t kUserDefined = 4;
constexpr std::int64_t kUnused = 5;

constexpr const char* kMark = "\xE2\x96\x81";  // U+2581, for a space
constexpr std::uint64_t kMostMergeBytes = std::uint64_t{32} << 20;

constexpr const char* kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

Json byte_level(bool splits) {
  return JsonObject{{"type", "ByteLevel"},
                    {"add_prefix_space", false},
                    {"trim_offsets", true},
                    {"use_regex", splits}};
}

Json sequence(Json first, Json second) {
  return JsonObject{{"type", "Sequence"},
                    {"pretokenizers", JsonArray{std::move(first), std::move(second)}}};
}

Json split(const char* pattern) {
  return JsonObject{{"type", "Split"},
                    {"pattern", JsonObject{{"Regex", pattern}}},
                    {"behavior", "Isolated"},
                    {"invert", false}};
}

// What the name of a pre-tokenizer stands for.
struct Kind {
  Json normalizer;
  Json pre_tokenizer;
  bool ignores_merges = false;
  bool begins_with_bos = false;  // unless the file says otherwise
};

std::optional<Kind> kind_of(std::string_view name) {
  if (name == "gpt-2" || name == "gpt2" || name == "olmo") return Kind{{}, byte_level(true)};
  if (name == "smollm" || name == "refact")
    return Kind{
        {},
        sequence(JsonObject{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true))};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3")
    return Kind{{}, sequence(split(kLlama3Pattern), byte_level(false)), true, true};
  if (name == "dbrx") return Kind{{}, sequence(split(kLlama3Pattern), byte_level(false))};
  if (name == "qwen2" || name == "deepseek-r1-qwen")
    return Kind{JsonObject{{"type", "NFC"}}, sequence(split(kQwen2Pattern), byte_level(false))};
  return std::nullopt;
}

class TokenizerWriter {
 public:
  explicit TokenizerWriter(const GgufFile& file) : file_(file) {}

  std::vector<std::pair<std::string, std::string>> byte_level_files(const Kind& kind) {
    read_tokens();
    return files(byte_level_document(kind));
  }

  std::vector<std::pair<std::string, std::string>> sentencepiece_files() {
    read_tokens();
    return files(sentencepiece_document());
  }

 private:
  std::vector<std::pair<std::string, std::string>> files(const JsonObject& document) const {
    std::vector<std::pair<std::string, std::string>> files;
    files.emplace_back("tokenizer.json", dump_json(document));
    files.emplace_back("tokenizer_config.json", dump_json(settings()));
    if (const auto chat = file_.text("tokenizer.chat_template")) {
      if (!is_utf8(*chat)) throw fault("its chat template is not UTF-8");
      files.emplace_back("chat_template.jinja", std::string(*chat));
    }
    return files;
  }

  Error fault(const std::string& reason) const {
    return Error(ErrorKind::malformed,
                 "cannot import GGUF model " + file_.path.string() + ": " + reason)
        .in_file(file_.path.string());
  }

  const GgufArray& required(const char* key, bool is_held(const GgufArray&),
                            const char* expected) const {
    const GgufArray* array = file_.array(key);
    if (array == nullptr || !is_held(*array))
      throw fault("its metadata lacks " + std::string(key) + ", expected " + expected);
    return *array;
  }

  static bool is_text(const GgufArray& array) { return array.holds_texts(); }
  static bool is_integer(const GgufArray& array) { return array.holds_integers(); }
  static bool is_float(const GgufArray& array) { return array.holds_floats(); }

  void read_tokens() {
    const GgufArray& tokens = required("tokenizer.ggml.tokens", is_text, "a list of texts");
    tokens.each_text([&](std::string_view token) {
      if (!is_utf8(token)) throw fault("token " + std::to_string(names_.size()) + " is not UTF-8");
      names_.push_back(token);
    });
    if (!file_.metadata.contains("tokenizer.ggml.token_type")) return;
    const GgufArray& types =
        required("tokenizer.ggml.token_type", is_integer, "a list of integers");
    if (types.size() != names_.size())
      throw fault("it has " + std::to_string(names_.size()) + " tokens and " +
                  std::to_string(types.size()) + " token types");
    types.each_integer([&](std::int64_t type) { types_.push_back(type); });
  }

  std::int64_t type_of(std::size_t id) const { return types_.empty() ? 1 : types_[id]; }

  std::optional<std::size_t> id_of(const std::string& role) const {
    const auto id = file_.integer("tokenizer.ggml." + role + "_token_id");
    if (!id) return std::nullopt;
    if (*id < 0 || static_cast<std::size_t>(*id) >= names_.size())
      throw fault("its " + role + " token is " + std::to_string(*id) + " of " +
                  std::to_string(names_.size()));
    return static_cast<std::size_t>(*id);
  }

  JsonObject vocabulary(bool with_unused) const {
    JsonObject vocabulary;
    for (std::size_t id = 0; id < names_.size(); ++id) {
      if (type_of(id) == kUnused && !with_unused) continue;
      Json& place = vocabulary[names_[id]];
      if (!place.is_null())
        throw fault("tokens " + dump_json(place) + " and " + std::to_string(id) + " are both " +
                    dump_json(names_[id]));
      place = static_cast<std::int64_t>(id);
    }
    return vocabulary;
  }

  JsonArray merges() const {
    JsonArray merges;
    required("tokenizer.ggml.merges", is_text, "a list of texts")
        .each_text([&](std::string_view m) { merges.emplace_back(m); });
    return merges;
  }

  // The file's merges, or those that its tokens and their scores imply.
  JsonArray sentencepiece_merges() const {
    if (file_.metadata.contains("tokenizer.ggml.merges")) return merges();
    std::vector<double> scores;
    required("tokenizer.ggml.scores", is_float, "a list of numbers").each_float([&](double score) {
      if (std::isnan(score))
        throw fault("the score of token " + std::to_string(scores.size()) + " is no number");
      scores.push_back(score);
    });
    if (scores.size() != names_.size())
      throw fault("it has " + std::to_string(names_.size()) + " tokens and " +
                  std::to_string(scores.size()) + " scores");
    const auto pairs = implied_merges(names_, scores, kMostMergeBytes);
    if (!pairs)
      throw fault("its tokens imply merges of more than " + std::to_string(kMostMergeBytes) +
                  " bytes");
    JsonArray merges;
    merges.reserve(pairs->size());
    for (const auto& [left, right] : *pairs) merges.push_back(JsonArray{left, right});
    return merges;
  }

  JsonArray added_tokens(const std::function<bool(std::size_t)>& is_special) const {
    JsonArray added;
    for (std::size_t id = 0; id < names_.size(); ++id) {
      if (!is_special(id) && type_of(id) != kUserDefined) continue;
      added.push_back(JsonObject{{"id", static_cast<std::int64_t>(id)},
                                 {"content", names_[id]},
                                 {"single_word", false},
                                 {"lstrip", false},
                                 {"rstrip", false},
                                 {"normalized", false},
                                 {"special", is_special(id)}});
    }
    return added;
  }

  // Besides control tokens: those that the file gives a role, and those that the class
  // LlamaTokenizer names itself.
  bool is_sentencepiece_special(std::size_t id) const {
    if (type_of(id) == kControl) return true;
    for (const char* name : {"<unk>", "<s>", "</s>"})
      if (names_[id] == name) return true;
    for (const char* role : {"bos", "eos", "unknown", "padding"})
      if (id_of(role) == id) return true;
    return false;
  }

  Json sentencepiece_post_processor() const {
    const auto role = [&](const char* name, bool fallback) {
      const std::string key = std::string("tokenizer.ggml.add_") + name + "_token";
      return file_.flag(key).value_or(fallback) ? id_of(name) : std::nullopt;
    };
    const auto bos = role("bos", true);
    const auto eos = role("eos", false);
    JsonArray single, pair;
    JsonObject special;
    const auto add = [&](JsonArray& to, const std::optional<std::size_t>& id, int type) {
      if (!id) return;
      const std::string_view name = names_[*id];
      to.push_back(JsonObject{{"SpecialToken", JsonObject{{"id", name}, {"type_id", type}}}});
      special[std::string(name)] = JsonObject{{"id", name},
                                              {"ids", JsonArray{static_cast<std::int64_t>(*id)}},
                                              {"tokens", JsonArray{name}}};
    };
    for (const auto& [text, type] : {std::pair{"A", 0}, std::pair{"B", 1}}) {
      for (JsonArray* to : {&single, &pair}) {
        if (to == &single && type == 1) continue;
        add(*to, bos, type);
        to->push_back(JsonObject{{"Sequence", JsonObject{{"id", text}, {"type_id", type}}}});
        add(*to, eos, type);
      }
    }
    return JsonObject{{"type", "TemplateProcessing"},
                      {"single", std::move(single)},
                      {"pair", std::move(pair)},
                      {"special_tokens", std::move(special)}};
  }

  JsonObject sentencepiece_document() const {
    const Json replace = JsonObject{
        {"type", "Replace"}, {"pattern", JsonObject{{"String", kMark}}}, {"content", " "}};
    JsonArray decoders{replace, JsonObject{{"type", "ByteFallback"}}, JsonObject{{"type", "Fuse"}}};
    // Gemma's texts begin without a space of the tokenizer's own.
    const bool has_prefix = file_.flag("tokenizer.ggml.add_space_prefix").value_or(true);
    if (has_prefix)
      decoders.push_back(
          JsonObject{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    return {{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens",
             added_tokens([&](std::size_t id) { return is_sentencepiece_special(id); })},
            {"normalizer", nullptr},
            {"pre_tokenizer", JsonObject{{"type", "Metaspace"},
                                         {"replacement", kMark},
                                         {"prepend_scheme", has_prefix ? "first" : "never"},
                                         {"split", false}}},
            {"post_processor", sentencepiece_post_processor()},
            {"decoder", JsonObject{{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
            {"model", JsonObject{{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"continuing_subword_prefix", nullptr},
                                 {"end_of_word_suffix", nullptr},
                                 {"fuse_unk", true},
                                 {"byte_fallback", true},
                                 {"ignore_merges", false},
                                 {"vocab", vocabulary(true)},
                                 {"merges", sentencepiece_merges()}}}};
  }

  Json post_processor(const Kind& kind) const {
    const bool adds_bos = file_.flag("tokenizer.ggml.add_bos_token").value_or(kind.begins_with_bos);
    const auto bos = id_of("bos");
    if (!adds_bos || !bos) return byte_level(true);
    const std::string_view name = names_[*bos];
    const Json token = JsonObject{{"SpecialToken", JsonObject{{"id", name}, {"type_id", 0}}}};
    const auto text = [](const char* id, int type) {
      return Json(JsonObject{{"Sequence", JsonObject{{"id", id}, {"type_id", type}}}});
    };
    return JsonObject{{"type", "TemplateProcessing"},
                      {"single", JsonArray{token, text("A", 0)}},
                      {"pair", JsonArray{token, text("A", 0), token, text("B", 1)}},
                      {"special_tokens",
                       JsonObject{{std::string(name),
                                   JsonObject{{"id", name},
                                              {"ids", JsonArray{static_cast<std::int64_t>(*bos)}},
                                              {"tokens", JsonArray{name}}}}}}};
  }

  JsonObject byte_level_document(const Kind& kind) const {
    return {{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens", added_tokens([&](std::size_t id) { return type_of(id) == kControl; })},
            {"normalizer", kind.normalizer},
            {"pre_tokenizer", kind.pre_tokenizer},
            {"post_processor", post_processor(kind)},
            {"decoder", byte_level(true)},
            {"model", JsonObject{{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"continuing_subword_prefix", nullptr},
                                 {"end_of_word_suffix", nullptr},
                                 {"fuse_unk", false},
                                 {"byte_fallback", false},
                                 {"ignore_merges", kind.ignores_merges},
                                 {"vocab", vocabulary(false)},
                                 {"merges", merges()}}}};
  }

  JsonObject settings() const {
    JsonObject settings;
    for (const auto& [name, role] : {std::pair{"bos_token", "bos"},
                                     {"eos_token", "eos"},
                                     {"pad_token", "padding"},
                                     {"unk_token", "unknown"}})
      if (const auto id = id_of(role)) settings[name] = names_[*id];
    settings["clean_up_tokenization_spaces"] = false;
    settings["tokenizer_class"] = "PreTrainedTokenizerFast";
    return settings;
  }

  const GgufFile& file_;
  std::vector<std::string_view> names_;  // by id, into the mapping
  std::vector<std::int64_t> types_;      // by id; empty: none are told
};

}  // namespace

std::vector<std::pair<std::string, std::string>> gguf_tokenizer_files(
    const GgufFile& file, std::vector<std::string>& notes) {
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) {
    notes.push_back("the GGUF file has no tokenizer: none was written");
    return {};
  }
  const std::string pattern(file.text("tokenizer.ggml.pre").value_or("default"));
  if (*model == "llama") return TokenizerWriter(file).sentencepiece_files();
  const auto kind = *model == "gpt2" ? kind_of(pattern) : std::nullopt;
  if (!kind) {
    notes.push_back(
        "the GGUF file's tokenizer (" + dump_json(*model) + ", splitting as " + dump_json(pattern) +
        ") cannot be rebuilt: put the original model's tokenizer.json beside the weights");
    return {};
  }
  return TokenizerWriter(file).byte_level_files(*kind);
}

}  // namespace lora
