#include <chrono>
#include <string>

#include "lora/format/json.h"
#include "lora/text/tokenizer.h"
#include "support/testing.h"
#include "text/regex.h"
#include "text/tokenizer_fixtures.h"

namespace lora {
namespace {

using lora::testing::kGolden;
using lora::testing::require_error;
using lora::testing::tokenizer_fixtures;

Tokenizer load(const std::string& text) {
  const testing::TempDir dir;
  testing::write_file(dir / "t.json", text);
  return Tokenizer::from_file(dir / "t.json");
}

std::string with_model(const std::string& vocab, const std::string& merges,
                       const std::string& added = "", const std::string& normalizer = "null") {
  return R"({"added_tokens":[)" + added + R"(],"normalizer":)" + normalizer +
         R"(,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
         R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{)" +
         vocab + R"(},"merges":[)" + merges + "]}}";
}

std::string repeated(const std::string& text, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST_CASE("a pattern whose search explodes ends soon, with its name and that of the file") {
  const auto explodes = [](const std::string& pattern, const std::string& text) {
    INFO(pattern);
    const text::Regex regex(pattern, "dir/tokenizer.json");
    text::RegexSearch search(regex, text);
    text::RegexMatch match;
    const auto begin = std::chrono::steady_clock::now();
    require_error(ErrorKind::unsupported,
                  '"' + pattern + "\" of dir/tokenizer.json: match limit exceeded at byte 0",
                  [&] { search.find(0, match); });
    REQUIRE(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  };
  explodes("(a+)+$", std::string(200'000, 'a') + "b");
  // No single place takes long, but there are many places.
  const std::string many(1 << 18, 'a');
  explodes("a*b", many + "cb");
  explodes("a*+b", many + "cb");
  explodes("[a-z]*?\\d", many);
  explodes("(?=.*x)a", many);
  explodes("(?:.*x|.)*y", many + "\ny");
  explodes("(a|aa)+c", repeated("aaaaaaaaaaaaaaab", 1 << 14) + "c");
}

TEST_CASE("all matches in one text share one budget") {
  const text::Regex regex("a|b[ab]*c", "t");
  const std::string text = repeated("ab", 1 << 17);
  text::RegexSearch search(regex, text);
  text::RegexMatch match;
  require_error(ErrorKind::unsupported, "match limit exceeded at byte ", [&] {
    for (std::size_t from = 0; search.find(from, match);) from = match.end;
  });
}

TEST_CASE("a search finds the leftmost match") {
  const text::Regex regex("(a+)+$", "t");
  text::RegexSearch search(regex, "baaa");
  text::RegexMatch match;
  REQUIRE(search.find(0, match));
  REQUIRE(match.begin == 1);
  REQUIRE(match.end == 4);
}

TEST_CASE("groups nested beyond what a match may hold in memory are refused") {
  const text::Regex regex("((a)|b)*c", "t");
  text::RegexMatch match;
  const std::string text = std::string(2'000'000, 'a') + "dc";
  text::RegexSearch search(regex, text);
  require_error(ErrorKind::unsupported, "heap limit exceeded", [&] { search.find(0, match); });
}

TEST_CASE("a megabyte on one line meets no limit of any tokenizer") {
  for (const std::string& name : tokenizer_fixtures()) {
    INFO(name);
    const Tokenizer tokenizer = Tokenizer::from_file(kGolden / (name + ".tokenizer.json"));
    // These take the whole text for a word, whose spaces they write as three bytes.
    const bool cuts = name != "llama2" && name != "mistral" && name != "phi3" && name != "gemma" &&
                      name != "unigram_bytes";
    const std::size_t size = cuts ? 1 << 20 : Tokenizer::kMaxWordBytes / 4;
    for (const std::string& text :
         {std::string(size, ' ') + "x", std::string(size, 'a'), std::string(size, '!'),
          repeated("Hello, w\xC3\xB6rld's 123  ", size / 21)})
      REQUIRE_NOTHROW(tokenizer.encode(text));
  }
}

TEST_CASE("a whole text that is one word is refused above the size that merging can hold") {
  for (const char* name : {"llama2", "unigram_bytes"}) {
    const Tokenizer tokenizer =
        Tokenizer::from_file(kGolden / (std::string(name) + ".tokenizer.json"));
    require_error(ErrorKind::malformed, "expected at most 1310720",
                  [&] { tokenizer.encode(repeated("one word and ", 110'000)); });
  }
}

TEST_CASE("tokens of word models are refused beyond the size that a search may walk") {
  const auto with = [](std::size_t size) {
    return R"({"model":{"type":"Unigram","vocab":[[")" + std::string(size, 'a') + R"(",-1]]}})";
  };
  REQUIRE(load(with(1024)).vocab_size() == 1);
  require_error(ErrorKind::malformed, "token 0 has 1025 bytes, expected at most 1024",
                [&] { load(with(1025)); });
}

TEST_CASE("the tree of a vocabulary is paid for from what the file justifies") {
  const auto with = [](std::size_t count) {
    std::string vocab;
    for (std::size_t i = 0; i < count; ++i)
      vocab += (i > 0 ? ",[\"" : "[\"") + std::to_string(i) + std::string(1000, 'a') + "\",-1]";
    return R"({"model":{"type":"Unigram","vocab":[)" + vocab + "]}}";
  };
  REQUIRE(load(with(1'000)).vocab_size() == 1'000);
  require_error(ErrorKind::malformed, "more memory than a file of its size justifies",
                [&] { load(with(20'000)); });
}

TEST_CASE("a word that no tokenizer cuts is refused before its merging takes the memory") {
  const Tokenizer tokenizer = Tokenizer::from_file(kGolden / "gpt2.tokenizer.json");
  REQUIRE(tokenizer.encode(std::string(Tokenizer::kMaxWordBytes, 'a')).size() > 0);
  require_error(ErrorKind::malformed, "has 1310721 bytes, expected at most 1310720",
                [&] { tokenizer.encode(std::string(Tokenizer::kMaxWordBytes + 1, 'a')); });
}

TEST_CASE("a text comes in parts that together are its tokens") {
  const Tokenizer tokenizer = Tokenizer::from_file(kGolden / "smollm.tokenizer.json");
  const std::string text = repeated("one <|endoftext|> two, 3 times ", 2'000);
  std::vector<TokenId> joined;
  std::size_t largest = 0;
  tokenizer.encode_parts(text, true, [&](std::span<const TokenId> part) {
    joined.insert(joined.end(), part.begin(), part.end());
    largest = std::max(largest, part.size());
  });
  REQUIRE(joined == tokenizer.encode(text, true));
  REQUIRE(joined.size() > 20'000);
  REQUIRE(largest < 5'000);
}

TEST_CASE("threads share a long text and find its tokens") {
  std::string text;
  for (int i = 0; i < 40'000; ++i) {
    text += std::to_string(i * 7919) + "th it's  naïve 漢字 word,\n\n\tend of line   ";
    if (i % 15'000 == 7) text += "<|endoftext|> <|im_start|>user\n";
  }
  text += std::string(600'000, 'x');
  for (const char* name : {"smollm", "gpt2", "llama3", "qwen2", "prefix_space", "gemma", "t5",
                           "o200k_removed", "bert_uncased"}) {
    const Tokenizer tokenizer =
        Tokenizer::from_file(kGolden / (std::string(name) + ".tokenizer.json"));
    INFO(name);
    const std::string_view shown =
        std::string_view(name) == "gemma" ? std::string_view(text).substr(0, 700'000) : text;
    const std::vector<TokenId> expected = tokenizer.encode(shown);
    for (const int threads : {2, 3}) {
      std::vector<TokenId> joined;
      tokenizer.encode_parts(
          shown, true,
          [&](std::span<const TokenId> part) {
            joined.insert(joined.end(), part.begin(), part.end());
          },
          threads);
      REQUIRE((joined == expected));
    }
  }
}

TEST_CASE("a vocabulary with holes takes no more memory than its file justifies") {
  REQUIRE(load(with_model(R"("a":0,"b":100000)", "")).id_to_token(100000) == "b");
  require_error(ErrorKind::malformed, "more memory than a file of its size justifies",
                [] { load(with_model(R"("a":0,"b":16777215)", "")); });
}

TEST_CASE("merges beyond the memory that the file justifies are refused") {
  const std::string vocab = R"("a":0,"b":1,"ab":2)";
  const auto many = [&](std::size_t count) {
    return with_model(vocab, R"("a b")" + repeated(R"(,"a b")", count));
  };
  REQUIRE(load(many(100'000)).encode("ab") == std::vector<TokenId>{2});
  require_error(ErrorKind::malformed, "more memory than a file of its size justifies",
                [&] { load(many(2'000'000)); });
}

TEST_CASE("added tokens are found longest first, and only up to their longest size") {
  const auto token = [](int id, const std::string& content) {
    return R"({"id":)" + std::to_string(id) + R"(,"content":")" + content + R"("})";
  };
  const Tokenizer tokenizer = load(
      with_model(R"("x":0)", "", token(1, "ab") + "," + token(2, "abcd") + "," + token(3, "abz")));
  REQUIRE(tokenizer.encode("xabcxabcdabyxabz") == std::vector<TokenId>{0, 1, 0, 2, 1, 0, 3});
  REQUIRE(load(with_model(R"("x":0)", "", token(1, std::string(1024, 'y')))).vocab_size() == 2);
  require_error(ErrorKind::malformed, "an added token has 1025 bytes",
                [&] { load(with_model(R"("x":0)", "", token(1, std::string(1025, 'y')))); });
}

TEST_CASE("steps of a normalizer that multiply each other are stopped") {
  const auto tenfold = [](std::size_t steps) {
    const std::string step =
        R"({"type":"Replace","pattern":{"String":"x"},"content":"xxxxxxxxxx"})";
    return with_model(
        R"("x":0)", "", "",
        R"({"type":"Sequence","normalizers":[)" + step + repeated("," + step, steps - 1) + "]}");
  };
  REQUIRE(load(tenfold(2)).encode("x").size() == 100);
  const Tokenizer tokenizer = load(tenfold(20));
  require_error(ErrorKind::unsupported, "cannot normalize text: 1 bytes would become",
                [&] { tokenizer.encode("x"); });
  require_error(ErrorKind::unsupported, "more than 256 steps", [&] { load(tenfold(257)); });
}

}  // namespace
}  // namespace lora
