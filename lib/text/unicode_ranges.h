// Unicode classes exactly as the tokenizers package applies them. They come from two Unicode
// versions there (its regular expressions use 16, its other code 17), so they are tables of ours
// and not those of a library.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>

namespace lora::text {

struct CodePointRange {
  std::uint32_t first;
  std::uint32_t last;
};

/// Ascending, disjoint. \p{L} and \p{N} of its regular expressions; what Digits takes for a digit;
/// what single_word takes for a word character.
std::span<const CodePointRange> letter_ranges();
std::span<const CodePointRange> number_ranges();
std::span<const CodePointRange> numeric_ranges();
std::span<const CodePointRange> word_ranges();

/// What Punctuation takes for punctuation; what BertNormalizer drops as control characters and as
/// accents; what StripAccents drops.
std::span<const CodePointRange> punctuation_ranges();
std::span<const CodePointRange> control_ranges();
std::span<const CodePointRange> nonspacing_mark_ranges();
std::span<const CodePointRange> combining_mark_ranges();

/// Characters that utf8proc decomposes, composes or reorders and the package's normal forms, which
/// are older, do not.
std::span<const CodePointRange> inert_ranges();

inline bool contains(std::span<const CodePointRange> ranges, std::uint32_t code_point) {
  const auto next = std::upper_bound(
      ranges.begin(), ranges.end(), code_point,
      [](std::uint32_t value, const CodePointRange& range) { return value < range.first; });
  return next != ranges.begin() && code_point <= std::prev(next)->last;
}

/// White_Space: the same 25 characters in both versions.
constexpr bool is_white_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace lora::text
