// Decoding of UTF-8 that may be wrong.
#pragma once

#include <cstddef>
#include <string_view>

namespace lora {

/// Decodes the code point at the front of a non-empty `text` into `code_point` and returns the
/// bytes it takes (1 to 4); 0 when they are not well formed (overlong, surrogate, beyond U+10FFFF,
/// cut short), leaving `code_point` alone.
std::size_t decode_utf8(std::string_view text, char32_t& code_point);

/// True when all of `text` is well formed.
bool is_utf8(std::string_view text);

}  // namespace lora
