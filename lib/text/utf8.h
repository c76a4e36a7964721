// UTF-8 at the level of single code points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lora::text {

/// Offset of the first byte that is not part of well-formed UTF-8, or npos.
std::size_t find_invalid_utf8(std::string_view bytes);

/// Length in bytes of the character that starts with `lead`; the text must be well formed.
inline std::size_t utf8_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// Whether a byte of well-formed text is the first of a character.
inline bool is_utf8_start(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80; }

/// Code point at `position` of well-formed text; `length` receives its size in bytes.
inline std::uint32_t utf8_at(std::string_view text, std::size_t position, std::size_t& length) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[position + i]));
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) {
    length = 1;
    return lead;
  }
  if (lead < 0xE0) {
    length = 2;
    return (lead & 0x1FU) << 6 | (byte(1) & 0x3FU);
  }
  if (lead < 0xF0) {
    length = 3;
    return (lead & 0x0FU) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
  }
  length = 4;
  return (lead & 0x07U) << 18 | (byte(1) & 0x3FU) << 12 | (byte(2) & 0x3FU) << 6 |
         (byte(3) & 0x3FU);
}

/// Start of the character that ends just before `position` (> 0) of well-formed text.
inline std::size_t utf8_previous(std::string_view text, std::size_t position) {
  do --position;
  while (!is_utf8_start(text[position]));
  return position;
}

void append_utf8(std::string& out, std::uint32_t code_point);

/// Appends `bytes` with each maximal invalid part replaced by U+FFFD (Unicode's recommended
/// practice, which Rust and Python follow). With `hold_back_tail` a character that is cut off by
/// the end of `bytes` is left alone; the return value is the number of bytes consumed.
std::size_t append_lossy(std::string& out, std::string_view bytes, bool hold_back_tail);

}  // namespace lora::text
