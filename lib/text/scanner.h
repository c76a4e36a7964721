// The two splitting patterns that nearly all byte-level tokenizers use, written by hand.
//
// PCRE2 with JIT gives the same pieces about five times slower and from an older Unicode; a test
// compares the two on text that both know.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace lora::text {

/// GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// Llama-3 (digits in threes) and Qwen2 (digits alone) share the other form.
enum class KnownPattern { gpt2, llama3, qwen2 };

/// The regular expression of a known pattern, and the way back.
std::string_view expression_of(KnownPattern pattern);
std::optional<KnownPattern> known_pattern(std::string_view expression);

class Scanner {
 public:
  explicit Scanner(KnownPattern pattern);

  /// End of the piece that starts at `start` < text.size(); always moves forward. `text` is well
  /// formed UTF-8. Every character belongs to some piece.
  std::size_t next(std::string_view text, std::size_t start) const;

 private:
  enum Class : std::uint8_t { other, letter, number, space };
  struct Character {
    Class kind;
    std::size_t length;
  };
  Character at(std::string_view text, std::size_t position) const;
  std::size_t run_of(Class kind, std::string_view text, std::size_t position) const;
  std::size_t next_gpt2(std::string_view text, std::size_t start) const;
  std::size_t next_llama3(std::string_view text, std::size_t start) const;
  std::size_t white_space(std::string_view text, std::size_t start, bool newlines_bind) const;

  KnownPattern pattern_;
  std::vector<std::uint8_t> classes_;  // by code point; anything beyond the end is `other`
};

}  // namespace lora::text
