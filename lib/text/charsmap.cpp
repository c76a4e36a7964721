#include "text/charsmap.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "text/utf8.h"

namespace lora::text {
namespace {

// Rules are looked up for whole user-perceived characters of up to this size, and for single code
// points of longer ones.
constexpr std::size_t kLongestGrapheme = 5;

std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int>(i);
  if (text.size() % 4 != 0) return std::nullopt;
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = values[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = (bits << 6 | static_cast<std::uint32_t>(value)) & 0xFFFFFF;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  return bytes;
}

std::uint32_t unit_at(std::string_view bytes, std::size_t position) {
  std::uint32_t unit = 0;
  for (std::size_t i = 0; i < 4; ++i)
    unit |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[position + i])) << 8 * i;
  return unit;
}

// Fields of a unit of the trie.
bool has_value(std::uint32_t unit) { return (unit >> 8 & 1) == 1; }
std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
std::uint32_t offset(std::uint32_t unit) { return unit >> 10 << ((unit & 1U << 9) >> 6); }

std::size_t grapheme_end(std::string_view text, std::size_t begin) {
  std::size_t length = 0;
  auto previous = static_cast<utf8proc_int32_t>(utf8_at(text, begin, length));
  utf8proc_int32_t state = 0;
  std::size_t end = begin + length;
  while (end < text.size()) {
    const auto next = static_cast<utf8proc_int32_t>(utf8_at(text, end, length));
    if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
    previous = next;
    end += length;
  }
  return end;
}

std::ptrdiff_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), is_utf8_start);
}

bool is_character_begin(std::string_view text, std::size_t position) {
  return position == text.size() || is_utf8_start(text[position]);
}

}  // namespace

Charsmap::Charsmap(const Component& part, const std::string& context) {
  const auto bytes = from_base64(part.string("precompiled_charsmap"));
  if (!bytes)
    throw malformed_tokenizer("normalizer Precompiled has a charsmap that is no base64", context);
  const std::size_t size = bytes->size() < 4 ? 0 : unit_at(*bytes, 0) / 4 * std::size_t{4};
  if (size == 0 || size > bytes->size() - 4)
    throw malformed_tokenizer("normalizer Precompiled has a charsmap of " +
                                  std::to_string(bytes->size()) + " bytes with a trie of " +
                                  std::to_string(size),
                              context);
  units_.reserve(size / 4);
  for (std::size_t i = 4; i < size + 4; i += 4) units_.push_back(unit_at(*bytes, i));
  texts_ = bytes->substr(size + 4);
  if (find_invalid_utf8(texts_) != std::string::npos)
    throw malformed_tokenizer("normalizer Precompiled has texts that are not UTF-8", context);
}

// What replaces the shortest text with a rule that `text` begins with, and with it all of `text`:
// so do the tokenizers package and, for its own rules, SentencePiece.
std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
  std::size_t node = offset(units_.front());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) return std::nullopt;
    const std::uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_value(unit)) continue;
    if (node >= units_.size()) return std::nullopt;
    const std::size_t begin = value(units_[node]);
    if (begin > texts_.size() || !is_character_begin(texts_, begin)) return std::nullopt;
    return std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin);
  }
  return std::nullopt;
}

// Where the reference takes the characters of the result to come from: it lets each take the place
// of the next one before, and one that is dropped at the very beginning counts for nothing.
class Charsmap::Origins {
 public:
  explicit Origins(const NormalText& normal) : normal_(normal) {}

  void keep() { add(0); }

  void replace(std::string_view from, std::string_view to) {
    const std::ptrdiff_t before = count_characters(from);
    const std::ptrdiff_t after = count_characters(to);
    for (std::ptrdiff_t i = 0; i < after; ++i) add(i < before ? 0 : 1);
    if (after < before && !is_full() && !changes_.empty()) changes_.back() += after - before;
  }

  // The number of first bytes of `text` that come from the first bytes of the source.
  std::size_t start_of(std::string_view text) const {
    std::size_t size = 0;
    std::size_t offset = 0;
    for (const std::ptrdiff_t change : changes_) {
      const bool is_new = change > 0;
      if (size == text.size() ||
          (is_new ? std::max<std::size_t>(offset, 1) > normal_.start : offset >= normal_.start))
        break;
      size += utf8_length(static_cast<unsigned char>(text[size]));
      for (std::ptrdiff_t i = is_new ? 1 : change; i <= 0 && offset < normal_.text.size(); ++i)
        offset += utf8_length(static_cast<unsigned char>(normal_.text[offset]));
    }
    return size;
  }

 private:
  // No more characters than this come from the first one.
  static constexpr std::size_t kMost = 64;

  bool is_full() const { return changes_.size() == kMost; }
  void add(std::ptrdiff_t change) {
    if (!is_full()) changes_.push_back(change);
  }

  const NormalText& normal_;
  // Of the result's first characters: 1 for a new one, -n for one that n dropped ones follow.
  std::vector<std::ptrdiff_t> changes_;
};

void Charsmap::apply(NormalText& normal) const {
  const std::string_view text = normal.text;
  Origins origins(normal);
  std::string out;
  out.reserve(text.size());
  const auto append_replaced = [&](std::string_view part) {
    const auto replaced = replacement(part);
    if (!replaced) return false;
    require_growth(text.size(), out.size() + replaced->size());
    out += *replaced;
    origins.replace(part, *replaced);
    return true;
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = grapheme_end(text, begin);
    const std::string_view grapheme = text.substr(begin, end - begin);
    begin = end;
    if (grapheme.size() <= kLongestGrapheme && append_replaced(grapheme)) continue;
    std::size_t length = 0;
    for (std::size_t i = 0; i < grapheme.size(); i += length) {
      length = utf8_length(static_cast<unsigned char>(grapheme[i]));
      const std::string_view character = grapheme.substr(i, length);
      if (append_replaced(character)) continue;
      out += character;
      origins.keep();
    }
  }
  normal.start = normal.start > 0 ? origins.start_of(out) : 0;
  normal.text = std::move(out);
}

}  // namespace lora::text
