// What is looked at in JSON text before the library parses it, and what its complaints say.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lora {

/// The library holds a string or number three times while it reads one, so files may not hold
/// longer ones than this; text at hand (a line of training data) may hold more.
inline constexpr std::size_t kLongestTokenOfFile = std::size_t{2} << 20;
inline constexpr std::size_t kLongestTokenOfText = std::size_t{16} << 20;

/// True when a string, number or name longer than `most` bytes stands in `text`, which need not be
/// valid.
bool has_longer_token(std::string_view text, std::size_t most);

/// The library's reason without its numbering and without the offending input, which may be long
/// and need not be UTF-8.
std::string reason_of(const nlohmann::detail::exception& failure);

/// "NaN", "Infinity" or "-Infinity", which Python's json module writes for numbers that are not
/// finite, where the library stopped at byte `position` (from 1) because of one; empty otherwise.
std::string python_number(std::string_view text, std::size_t position);

}  // namespace lora
