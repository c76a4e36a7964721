#include "lora/text/tokenizer.h"

#include <algorithm>

#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text";

std::vector<TokenId> ids_of(const Json& array) {
  std::vector<TokenId> ids;
  for (const Json& id : *array.as_array()) ids.push_back(*id.as_int());
  return ids;
}

Json document_of(std::string_view name) {
  return read_json_file(kGolden / (std::string(name) + ".tokenizer.json"));
}

Tokenizer load(const Json& document) {
  const testing::TempDir dir;
  testing::write_file(dir / "t.json", dump_json(document));
  return Tokenizer::from_file(dir / "t.json");
}

TEST_CASE("ids and decoded text equal the reference for every fixture") {
  const Json corpus = read_json_file(kGolden / "corpus.json");
  for (const char* name :
       {"gpt2", "smollm", "prefix_space", "llama3", "qwen2", "o200k_removed", "nfkc_lower", "nfd",
        "digit_groups", "unknown", "unknown_fused", "unknown_dropped"}) {
    const Tokenizer tokenizer =
        Tokenizer::from_file(kGolden / (std::string(name) + ".tokenizer.json"));
    const Json golden = read_json_file(kGolden / (std::string(name) + ".golden.json"));
    REQUIRE(golden.as_array()->size() == corpus.as_array()->size());
    for (std::size_t i = 0; i < golden.as_array()->size(); ++i) {
      const std::string& text = *(*corpus.as_array())[i].as_string();
      const Json& want = (*golden.as_array())[i];
      INFO(name << ": " << dump_json(text));
      const auto ids = ids_of(*want.find("with_special"));
      const auto plain = want.find("plain") ? ids_of(*want.find("plain")) : ids;
      const std::string& whole = *want.find("text")->as_string();
      REQUIRE(tokenizer.encode(text, true) == ids);
      REQUIRE(tokenizer.encode(text, false) == plain);
      REQUIRE(tokenizer.decode(ids, false) == whole);
      REQUIRE(tokenizer.decode(ids, true) ==
              (want.find("clean") ? *want.find("clean")->as_string() : whole));
      TokenStream stream(tokenizer, false);
      std::string streamed;
      for (const TokenId id : ids) streamed += stream.push(id);
      REQUIRE(streamed + stream.finish() == whole);
    }
  }
}

TEST_CASE("a stream holds a character back until its last byte has come") {
  const Tokenizer tokenizer = Tokenizer::from_file(kGolden / "gpt2.tokenizer.json");
  const auto byte_token = [&](const char* spelling) { return *tokenizer.token_to_id(spelling); };
  TokenStream stream(tokenizer);
  REQUIRE(stream.push(byte_token("ð")).empty());
  REQUIRE(stream.push(byte_token("Ł")).empty());
  REQUIRE(stream.push(byte_token("ĺ")).empty());
  REQUIRE(stream.push(byte_token("Ģ")) == "😀");
  REQUIRE(stream.push(byte_token("ð")).empty());
  REQUIRE(stream.finish() == "\xEF\xBF\xBD");
  REQUIRE(stream.finish().empty());
}

TEST_CASE("many documents on many threads give what one by one gives") {
  const Tokenizer tokenizer = Tokenizer::from_file(kGolden / "llama3.tokenizer.json");
  const Json corpus = read_json_file(kGolden / "corpus.json");
  std::vector<std::string_view> texts;
  for (int repeat = 0; repeat < 5; ++repeat)
    for (const Json& text : *corpus.as_array()) texts.push_back(*text.as_string());
  const auto batch = tokenizer.encode_batch(texts, true, 4);
  REQUIRE(batch.size() == texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) REQUIRE(batch[i] == tokenizer.encode(texts[i]));
}

TEST_CASE("text that is not UTF-8 is refused with the byte") {
  const Tokenizer tokenizer = Tokenizer::from_file(kGolden / "gpt2.tokenizer.json");
  for (const char* bad :
       {"abc\xFF", "abc\xC3", "abc\xED\xA0\x80", "abc\xC0\xAF", "abc\xF4\x90\x80\x80"})
    require_error(ErrorKind::malformed, "byte 3 is not UTF-8", [&] { tokenizer.encode(bad); });
}

TEST_CASE("special tokens get their ids from the files beside tokenizer.json") {
  const testing::TempDir dir;
  std::filesystem::copy_file(kGolden / "gpt2.tokenizer.json", dir / "tokenizer.json");
  REQUIRE_FALSE(Tokenizer::from_directory(dir.path()).eos_id().has_value());
  testing::write_file(dir / "config.json", R"({"eos_token_id": [2, 7], "bos_token_id": 1})");
  REQUIRE(Tokenizer::from_directory(dir.path()).eos_id() == 2);
  testing::write_file(dir / "tokenizer_config.json",
                      R"({"eos_token": "<|endoftext|>", "pad_token": {"content": "<|im_end|>"},
                          "added_tokens_decoder": {"9999": {"content": "<new>", "special": true}}})");
  const Tokenizer tokenizer = Tokenizer::from_directory(dir.path());
  REQUIRE(tokenizer.eos_id() == 0);
  REQUIRE(tokenizer.eos_token() == "<|endoftext|>");
  REQUIRE(tokenizer.bos_id() == 1);
  REQUIRE(tokenizer.pad_id() == 2);
  const auto added = tokenizer.token_to_id("<new>");
  REQUIRE(added == 420);
  REQUIRE(tokenizer.vocab_size() == 421);
  REQUIRE(tokenizer.encode("<new>") == std::vector<TokenId>{420});
  REQUIRE(tokenizer.special_ids() == std::vector<TokenId>{0, 1, 2, 420});
  REQUIRE(tokenizer.id_to_token(421) == std::nullopt);
}

TEST_CASE("a directory without tokenizer.json is named") {
  const testing::TempDir dir;
  require_error(ErrorKind::not_found, "it has no tokenizer.json",
                [&] { Tokenizer::from_directory(dir.path()); });
}

TEST_CASE("an unsupported component is named") {
  const auto refuses = [](std::string_view part, std::string_view key, std::string_view value) {
    Json document = document_of("gpt2");
    (*document.as_object())[key] = parse_json(value, "value");
    require_error(ErrorKind::unsupported, part, [&] { load(document); });
  };
  refuses("pre_tokenizer Metaspace is not supported", "pre_tokenizer", R"({"type":"Metaspace"})");
  refuses("without a ByteLevel step", "pre_tokenizer", R"({"type":"Digits"})");
  refuses("pre_tokenizer Digits after ByteLevel", "pre_tokenizer",
          R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})");
  refuses("cannot compile the pattern", "pre_tokenizer",
          R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"("},
              "behavior":"Isolated","invert":false},{"type":"ByteLevel"}]})");
  refuses("normalizer BertNormalizer", "normalizer", R"({"type":"BertNormalizer"})");
  refuses("post_processor Odd", "post_processor", R"({"type":"Odd"})");
  refuses("decoder WordPiece", "decoder", R"({"type":"WordPiece"})");
  refuses("decoder null", "decoder", "null");
  refuses("model WordPiece", "model", R"({"type":"WordPiece","vocab":{}})");
  refuses("vocabulary that is not a map", "model", R"({"type":"Unigram","vocab":[["a",0.1]]})");
  refuses("BPE with byte_fallback", "model",
          R"({"type":"BPE","vocab":{},"merges":[],"byte_fallback":true})");
  refuses("BPE with dropout", "model", R"({"type":"BPE","vocab":{},"merges":[],"dropout":0.1})");
  refuses("BPE with end_of_word_suffix", "model",
          R"({"type":"BPE","vocab":{},"merges":[],"end_of_word_suffix":"</w>"})");
}

TEST_CASE("a post-processor adds tokens that exist") {
  Json document = document_of("gpt2");
  const auto with = [&](std::string_view id) {
    const std::string pair = "[\"<s>\"," + std::string(id) + "]";
    (*document.as_object())["post_processor"] = parse_json(
        R"({"type":"RobertaProcessing","cls":)" + pair + R"(,"sep":["</s>",1]})", "value");
    return document;
  };
  const Tokenizer tokenizer = load(with("0"));
  const auto last = static_cast<TokenId>(tokenizer.vocab_size()) - 1;
  REQUIRE(load(with(std::to_string(last))).encode("").front() == last);
  for (const TokenId id : {last + 1, TokenId{-1}, TokenId{1} << 40})
    require_error(ErrorKind::malformed, "post_processor adds the id " + std::to_string(id),
                  [&] { load(with(std::to_string(id))); });
}

TEST_CASE("a broken tokenizer.json is malformed, with the place") {
  const auto refuses = [](std::string_view part, std::string_view text) {
    const testing::TempDir dir;
    testing::write_file(dir / "t.json", text);
    require_error(ErrorKind::malformed, part, [&] { Tokenizer::from_file(dir / "t.json"); });
  };
  refuses("the end of the file", "");
  refuses("expected '{'", "[]");
  refuses("no \"model\" object", "{}");
  refuses("not UTF-8", "{\"\xFF\": 1}");
  refuses("expected an integer", R"({"model":{"vocab":{"a":"b"},"merges":[]}})");
  refuses("half a surrogate pair", R"({"model":{"vocab":{"\ud800":1},"merges":[]}})");
  refuses("is in the vocabulary twice", R"({"model":{"vocab":{"a":1,"a":2},"merges":[]}})");
  refuses("has id -1", R"({"model":{"vocab":{"a":-1},"merges":[]}})");
  refuses("has id 99999999999", R"({"model":{"vocab":{"a":99999999999},"merges":[]}})");
  refuses("expected two tokens with one space", R"({"model":{"vocab":{"a":1},"merges":["a"]}})");
  refuses("needs the token \"ab\"", R"({"model":{"vocab":{"a":1,"b":2},"merges":["a b"]}})");
  refuses("inside a string", R"({"model":{"vocab":{"a)");
  refuses("unk_token \"u\" is not in",
          R"({"model":{"vocab":{"a":1},"merges":[],"unk_token":"u"}})");
}

}  // namespace
}  // namespace lora
