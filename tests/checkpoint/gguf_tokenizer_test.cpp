#include <algorithm>
#include <map>

#include "checkpoint/gguf_base.h"
#include "checkpoint/gguf_merges.h"
#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

const std::filesystem::path kGolden =
    std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/gguf_tokenizer";

using Merges = std::vector<std::pair<std::string_view, std::string_view>>;

TEST_CASE("a SentencePiece tokenizer of a GGUF file is the one that transformers rebuilds") {
  std::vector<std::string> notes;
  const auto files = gguf_tokenizer_files(read_gguf(kGolden / "sentencepiece.gguf"), notes);
  REQUIRE(notes.empty());
  const std::map<std::string, std::string> by_name(files.begin(), files.end());
  REQUIRE(parse_json(by_name.at("tokenizer.json"), "ours") ==
          read_json_file(kGolden / "sentencepiece.tokenizer.json"));
  const Json settings = parse_json(by_name.at("tokenizer_config.json"), "settings");
  REQUIRE(*settings.find("bos_token")->as_string() == "<s>");
  REQUIRE(*settings.find("eos_token")->as_string() == "</s>");
}

TEST_CASE("merges follow the scores, then the lengths of their parts, then the vocabulary") {
  const std::vector<std::string_view> tokens{"a", "b", "ab", "ba", "aba", "\u00e9", "a\u00e9"};
  const std::vector<double> scores{0, 0, -1, -1, -1, 0, -0.5};
  REQUIRE(implied_merges(tokens, scores, 1 << 20) ==
          Merges{{"a", "\u00e9"}, {"ab", "a"}, {"a", "ba"}, {"a", "b"}, {"b", "a"}});
}

TEST_CASE("merges beyond the bytes that are allowed are not made") {
  std::vector<std::string> texts;
  for (std::size_t size = 1; size <= 512; ++size) texts.emplace_back(size, 'a');
  const std::vector<std::string_view> tokens(texts.begin(), texts.end());
  const std::vector<double> scores(tokens.size(), 0.0);
  REQUIRE(implied_merges(tokens, scores, 64 << 20)->size() == 512 * 511 / 2);
  REQUIRE_FALSE(implied_merges(tokens, scores, 1 << 20).has_value());
}

TEST_CASE("scores that do not fit the tokens of a GGUF file are refused") {
  const testing::TempDir dir;
  std::string content = testing::read_file(kGolden / "sentencepiece.gguf");
  const std::string key = "tokenizer.ggml.scores";
  const std::size_t place = content.find(key);
  REQUIRE(place != std::string::npos);
  const auto refuses = [&](std::string_view part, const std::string& changed) {
    testing::write_file(dir / "m.gguf", changed);
    std::vector<std::string> notes;
    require_error(ErrorKind::malformed, part,
                  [&] { gguf_tokenizer_files(read_gguf(dir / "m.gguf"), notes); });
  };
  std::string renamed = content;
  renamed[place] = 'T';
  refuses("its metadata lacks tokenizer.ggml.scores, expected a list of numbers", renamed);
  // The key, the type of the value and of its items, and their number come before the first score.
  std::string no_number = content;
  for (std::size_t i = 0; i < 4; ++i) no_number[place + key.size() + 16 + i] = '\xFF';
  refuses("the score of token 0 is no number", no_number);
}

}  // namespace
}  // namespace lora
