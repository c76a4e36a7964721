// Texts that Python lays out: numbers, widths, indents.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_functions.h"

namespace lora::text {

/// A whole text that is a decimal number, as float() reads it; nullopt for any other.
std::optional<double> number_in(std::string_view text);

/// `text % arguments`. Throws TemplateFault(unsupported) for conversions other than %s, %d, %i, %f,
/// %x and %%, TemplateFault(incompatible) when the arguments do not fit.
Value printf_format(const std::string& text, const std::vector<Value>& arguments,
                    RenderBudget& budget);

/// `text.format(...)`: {}, {0} and {name} without a format of their own; TemplateFault(unsupported)
/// for anything else in braces.
Value brace_format(const std::string& text, const Arguments& arguments, RenderBudget& budget);

enum class Padding { left, right, center, zeros };

/// `fill` is one character. Zeros stand behind a sign.
std::string padded(std::string_view text, std::int64_t width, char fill, Padding side,
                   RenderBudget& budget);

/// Each line but the first and empty ones behind `indent`, unless told otherwise.
std::string indented_lines(std::string_view text, std::string_view indent, bool first, bool blank,
                           RenderBudget& budget);

}  // namespace lora::text
