#include "text/utf8.h"

#include <cstring>

namespace lora::text {
namespace {

struct Sequence {
  std::size_t length = 0;  // bytes of the character, or of the invalid part
  bool is_valid = false;
  bool is_cut_off = false;  // valid so far, more bytes needed
};

Sequence sequence_at(std::string_view bytes, std::size_t position) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = byte(position);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < length; ++i) {
    if (position + i == bytes.size()) return {i, false, true};
    unsigned low = 0x80;
    unsigned high = 0xBF;
    if (i == 1) {
      // Overlong forms, surrogates and values above U+10FFFF are excluded by the second byte.
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    const unsigned next = byte(position + i);
    if (next < low || next > high) return {i, false, false};
  }
  return {length, true, false};
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view bytes) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    if (i + 8 <= bytes.size()) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + i, 8);
      if ((word & 0x8080808080808080ULL) == 0) {
        i += 8;
        continue;
      }
    }
    const Sequence sequence = sequence_at(bytes, i);
    if (!sequence.is_valid) return i;
    i += sequence.length;
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, std::uint32_t code_point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::size_t append_lossy(std::string& out, std::string_view bytes, bool hold_back_tail) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    const Sequence sequence = sequence_at(bytes, i);
    if (sequence.is_cut_off && hold_back_tail) return i;
    if (sequence.is_valid) {
      out.append(bytes.substr(i, sequence.length));
    } else {
      out += "\xEF\xBF\xBD";
    }
    i += sequence.length;
  }
  return i;
}

}  // namespace lora::text
