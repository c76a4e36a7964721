#include "lora/text/tokenizer.h"

#include <algorithm>

#include "lora/format/json.h"
#include "support/testing.h"
#include "text/tokenizer_fixtures.h"

namespace lora {
namespace {

using lora::testing::kGolden;
using lora::testing::require_error;
using lora::testing::tokenizer_fixtures;

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
  const std::vector<std::string> names = tokenizer_fixtures();
  REQUIRE(names.size() == 35);
  for (const std::string& name : names) {
    const Tokenizer tokenizer = Tokenizer::from_file(kGolden / (name + ".tokenizer.json"));
    const Json golden = read_json_file(kGolden / (name + ".golden.json"));
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
  refuses("pre_tokenizer UnicodeScripts is not supported", "pre_tokenizer",
          R"({"type":"UnicodeScripts"})");
  refuses("pre_tokenizer Split behavior Odd", "pre_tokenizer",
          R"({"type":"Split","pattern":{"String":"a"},"behavior":"Odd","invert":false})");
  refuses("cannot compile the pattern", "pre_tokenizer",
          R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"("},
              "behavior":"Isolated","invert":false},{"type":"ByteLevel"}]})");
  refuses("normalizer Odd", "normalizer", R"({"type":"Odd"})");
  refuses("post_processor Odd", "post_processor", R"({"type":"Odd"})");
  refuses("decoder CTC", "decoder", R"({"type":"CTC"})");
  refuses("model WordLevel", "model", R"({"type":"WordLevel","vocab":{}})");
  refuses("BPE with dropout", "model", R"({"type":"BPE","vocab":{},"merges":[],"dropout":0.1})");
}

TEST_CASE("a broken component is malformed, with what is wrong") {
  const auto refuses = [](std::string_view part, std::string_view name, std::string_view key,
                          std::string_view value) {
    Json document = document_of(name);
    (*document.as_object())[key] = parse_json(value, "value");
    INFO(key << " " << value);
    require_error(ErrorKind::malformed, part, [&] { load(document); });
  };
  refuses("expected a string of one character", "mistral", "pre_tokenizer",
          R"({"type":"Metaspace","replacement":"ab"})");
  refuses("expected always, first or never", "mistral", "pre_tokenizer",
          R"({"type":"Metaspace","replacement":"_","prepend_scheme":"odd"})");
  refuses("FixedLength has length 0", "mistral", "pre_tokenizer",
          R"({"type":"FixedLength","length":0})");
  refuses("expected an integer of at least 0", "llama2", "decoder",
          R"({"type":"Strip","content":" ","start":-1,"stop":0})");
  const auto charsmap = [](std::string_view base64) {
    return R"({"type":"Precompiled","precompiled_charsmap":")" + std::string(base64) + "\"}";
  };
  refuses("that is no base64", "t5", "normalizer", charsmap("AAA?"));
  refuses("that is no base64", "t5", "normalizer", charsmap("AAA"));
  refuses("of 0 bytes with a trie of 0", "t5", "normalizer", charsmap(""));
  refuses("of 4 bytes with a trie of 8", "t5", "normalizer", charsmap("CAAAAA=="));
  refuses("texts that are not UTF-8", "t5", "normalizer", charsmap("BAAAAAAAAAD/"));
  // A trie whose only unit leads out of it replaces nothing.
  Json document = document_of("t5");
  (*document.as_object())["normalizer"] = parse_json(charsmap("BAAAAAD///9hAA=="), "value");
  REQUIRE_FALSE(load(document).encode("Hello").empty());
}

TEST_CASE("a model that does not fit its vocabulary is malformed") {
  const auto refuses = [](std::string_view part, std::string_view model) {
    INFO(model);
    require_error(ErrorKind::malformed, part,
                  [&] { load(parse_json(R"({"model":)" + std::string(model) + "}", "value")); });
  };
  refuses("the vocabulary is a map", R"({"type":"Unigram","vocab":{"a":0}})");
  refuses("the vocabulary is a list", R"({"type":"BPE","vocab":[["a",0.5]],"merges":[]})");
  refuses("unk_id is 1 of 1 tokens", R"({"type":"Unigram","unk_id":1,"vocab":[["a",0.5]]})");
  refuses("expected a number", R"({"type":"Unigram","vocab":[["a","b"]]})");
  refuses("unk_token \"[UNK]\" is not in",
          R"({"type":"WordPiece","unk_token":"[UNK]","vocab":{"a":0}})");
  refuses("expected an integer of at least 0",
          R"({"type":"WordPiece","unk_token":"a","max_input_chars_per_word":-1,"vocab":{"a":0}})");
  refuses("expected one that starts with \"##\"",
          R"({"type":"BPE","continuing_subword_prefix":"##","vocab":{"a":0},"merges":["a a"]})");
}

TEST_CASE("a character that no token covers is named when there is no unknown token") {
  const Tokenizer tokenizer =
      load(parse_json(R"({"model":{"type":"Unigram","vocab":[["a",-1.0],["ab",-1.5]]}})", "value"));
  REQUIRE(tokenizer.encode("aaba") == std::vector<TokenId>{0, 1, 0});
  require_error(ErrorKind::malformed, "no token covers \"c\"", [&] { tokenizer.encode("aca"); });
}

TEST_CASE("files from before the type of a model was written are told apart") {
  REQUIRE(load(parse_json(R"({"model":{"vocab":[["a",-1.0]]}})", "v")).encode("aa") ==
          std::vector<TokenId>{0, 0});
  REQUIRE(load(parse_json(R"({"model":{"unk_token":"u","max_input_chars_per_word":3,
                                       "continuing_subword_prefix":"#",
                                       "vocab":{"a":0,"#a":1,"u":2}}})",
                          "v"))
              .encode("aaa") == std::vector<TokenId>{0, 1, 1});
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
  refuses("expected a number", R"({"model":{"type":"Unigram","vocab":[["a",1e999]]}})");
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
