// Python's methods of str, as far as templates use them. All text is well-formed UTF-8.
#pragma once

#include <utf8proc.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "text/chat_budget.h"

namespace lora::text {

std::int64_t character_count(std::string_view text);

/// As find of std::string_view, but never slower than text and part together are long.
std::size_t find_part(std::string_view text, std::string_view part, std::size_t from = 0);

/// `set` is what may go at either end, white space when null.
std::string_view stripped(std::string_view text, const std::string* set, bool left, bool right);

std::string mapped(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t));
std::string capitalized(std::string_view text);
std::string titled(std::string_view text);  ///< as str.title
/// As the filter title: a word ends at white space, '-', and opening brackets only.
std::string titled_words(std::string_view text);

/// There are letters that have a case, and all of them have this one.
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);

enum class CharacterKind { digit, letter, letter_or_digit, space };
/// Not empty, and all of one kind. Throws TemplateFault for digits beyond ASCII.
bool holds_only(std::string_view text, CharacterKind kind);

std::string reversed(std::string_view text);

/// A negative `limit` is none. An empty `from` stands in front of every character and at the end.
std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t limit, RenderBudget& budget);

/// At `mark`, or at white space when it is null.
Value split(std::string_view text, const std::string* mark, std::int64_t limit, bool from_right,
            RenderBudget& budget);

/// A list of the lines, with what ends them when `keeps_ends`.
Value lines_of(std::string_view text, bool keeps_ends, RenderBudget& budget);

/// A list of the characters, each a string.
Value characters(std::string_view text, RenderBudget& budget);

/// What each prints, with `separator` between.
std::string joined(const List& items, std::string_view separator, RenderBudget& budget);

}  // namespace lora::text
