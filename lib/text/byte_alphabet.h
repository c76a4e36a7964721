// The alphabet of byte-level BPE: each of the 256 bytes is written as one printable character in
// vocabulary files (GPT-2's bytes_to_unicode).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lora::text {

/// The character that stands for `byte`, as a code point.
char32_t alphabet_character(unsigned char byte);

/// Bytes that a token's spelling stands for; nullopt when a character is outside the alphabet.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

/// The same, appended to `out`, which stays as it is when false is returned.
bool append_bytes_of_spelling(std::string_view spelling, std::string& out);

/// Inverse of bytes_of_spelling.
std::string spelling_of_bytes(std::string_view bytes);

}  // namespace lora::text
