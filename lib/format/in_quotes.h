// Quoting text from a file inside a one-line message.
#pragma once

#include <string>
#include <string_view>

namespace lora {

/// The text in double quotes, control and non-ASCII-safe bytes shown as '?', cut at 120 bytes.
std::string in_quotes(std::string_view text);

/// The same without the quotes.
std::string printable(std::string_view text);

}  // namespace lora
