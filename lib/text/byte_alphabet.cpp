#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The other 68 bytes take U+0100, U+0101, ... in ascending order.
constexpr std::array<char32_t, 256> make_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte)
    characters[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
  return characters;
}
constexpr std::array<char32_t, 256> kCharacters = make_characters();

constexpr std::array<std::int16_t, 0x144> make_bytes() {
  std::array<std::int16_t, 0x144> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte)
    bytes[kCharacters[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}
constexpr std::array<std::int16_t, 0x144> kBytes = make_bytes();

}  // namespace

char32_t alphabet_character(unsigned char byte) { return kCharacters[byte]; }

bool append_bytes_of_spelling(std::string_view spelling, std::string& out) {
  const std::size_t before = out.size();
  std::size_t length = 0;
  for (std::size_t i = 0; i < spelling.size(); i += length) {
    const std::uint32_t character = utf8_at(spelling, i, length);
    if (character >= kBytes.size() || kBytes[character] < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(kBytes[character]);
  }
  return true;
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  if (!append_bytes_of_spelling(spelling, bytes)) return std::nullopt;
  return bytes;
}

std::string spelling_of_bytes(std::string_view bytes) {
  std::string spelling;
  spelling.reserve(2 * bytes.size());
  for (const char byte : bytes)
    append_utf8(spelling, kCharacters[static_cast<unsigned char>(byte)]);
  return spelling;
}

}  // namespace lora::text
