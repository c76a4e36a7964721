#include "text/chat_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "text/chat_text.h"

namespace lora::text {
namespace {

constexpr std::int64_t kMostWidth = 10'000;

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}
[[noreturn]] void unsupported(std::string what) {
  throw TemplateFault{ErrorKind::unsupported, std::move(what)};
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// One conversion of `%`: flags, width, precision, letter.
struct Conversion {
  bool is_left = false;
  bool has_zeros = false;
  std::int64_t width = 0;
  std::optional<std::int64_t> precision;
  char letter = '\0';
};

std::int64_t read_number(std::string_view text, std::size_t& at) {
  std::int64_t number = 0;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    number = 10 * number + (text[at] - '0');
    if (number > kMostWidth) unsupported("a width beyond 10000");
  }
  return number;
}

Conversion read_conversion(std::string_view text, std::size_t& at) {
  Conversion out;
  for (; at < text.size() && (text[at] == '-' || text[at] == '0'); ++at)
    (text[at] == '-' ? out.is_left : out.has_zeros) = true;
  out.width = read_number(text, at);
  if (at < text.size() && text[at] == '.') out.precision = read_number(text, ++at);
  if (at == text.size()) fault("an incomplete format");
  out.letter = text[at++];
  return out;
}

std::string printed_number(const Conversion& conversion, const Value& value) {
  std::array<char, 512> buffer;
  double number = 0;
  if (!as_number(value, number))
    fault(std::string("%") + conversion.letter + " got " + std::string(type_name(value)) +
          ", expected a number");
  if (conversion.letter == 'f') {
    const std::int64_t precision = conversion.precision.value_or(6);
    if (precision > 100) unsupported("a precision beyond 100");
    std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(precision), number);
    return buffer.data();
  }
  if (conversion.precision) unsupported("a precision of a whole number");
  std::int64_t integer = 0;
  if (!as_integer(value, integer)) {
    if (conversion.letter == 'x') fault("%x got float, expected int");
    if (!(number > -9e18 && number < 9e18)) unsupported("a number beyond 64 bits");
    integer = static_cast<std::int64_t>(number);
  }
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), integer,
                                 conversion.letter == 'x' ? 16 : 10)
                       .ptr;
  return {buffer.data(), end};
}

std::string converted(const Conversion& conversion, const Value& value, RenderBudget& budget) {
  std::string out;
  if (conversion.letter == 's') {
    out = budget.printed(value);
    if (conversion.precision) unsupported("%s with a precision");
  } else if (std::string_view("difx").find(conversion.letter) != std::string_view::npos) {
    out = printed_number(conversion, value);
  } else {
    unsupported(std::string("the format %") + conversion.letter);
  }
  const bool has_zeros = conversion.has_zeros && !conversion.is_left && conversion.letter != 's';
  return padded(out, conversion.width, has_zeros ? '0' : ' ',
                conversion.is_left ? Padding::right
                : has_zeros        ? Padding::zeros
                                   : Padding::left,
                budget);
}

void append(std::string& out, std::string_view part, RenderBudget& budget) {
  budget.require(2 * (out.size() + part.size()));
  budget.look_through(part.size());
  out += part;
}

}  // namespace

std::optional<double> number_in(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

Value printf_format(const std::string& text, const std::vector<Value>& arguments,
                    RenderBudget& budget) {
  std::string out;
  std::size_t used = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t mark = std::min(text.find('%', at), text.size());
    append(out, std::string_view(text).substr(at, mark - at), budget);
    if (mark == text.size()) break;
    at = mark + 1;
    if (at < text.size() && text[at] == '%') {
      append(out, "%", budget);
      ++at;
      continue;
    }
    const Conversion conversion = read_conversion(text, at);
    if (used == arguments.size()) fault("not enough arguments for the format");
    append(out, converted(conversion, arguments[used++], budget), budget);
  }
  if (used != arguments.size()) fault("more arguments than the format has places");
  return budget.text(std::move(out));
}

Value brace_format(const std::string& text, const Arguments& arguments, RenderBudget& budget) {
  std::string out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      const std::size_t end = std::min(text.find_first_of("{}", at), text.size());
      append(out, std::string_view(text).substr(at, end - at), budget);
      at = end;
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == c) {
      append(out, std::string_view(&c, 1), budget);
      at += 2;
      continue;
    }
    const std::size_t end = text.find('}', at);
    if (c == '}' || end == std::string::npos)
      fault("a single '" + std::string(1, c) + "' in a format");
    const std::string field = text.substr(at + 1, end - at - 1);
    if (field.find_first_of("!:.[{") != std::string::npos)
      unsupported("the format {" + field + "}");
    const bool is_number =
        !field.empty() && field.size() < 5 && std::all_of(field.begin(), field.end(), is_digit);
    const Value* value = nullptr;
    if (field.empty() || is_number) {
      const std::size_t index = field.empty() ? next++ : std::stoul(field);
      if (index < arguments.positional.size()) value = &arguments.positional[index];
    } else {
      value = arguments.find(arguments.positional.size(), field);
    }
    if (value == nullptr) fault("the format {" + field + "} has no argument");
    append(out, budget.printed(*value), budget);
    at = end + 1;
  }
  return budget.text(std::move(out));
}

std::string padded(std::string_view text, std::int64_t width, char fill, Padding side,
                   RenderBudget& budget) {
  if (width > kMostWidth) unsupported("a width beyond 10000");
  budget.look_through(text.size());
  const std::int64_t missing = width - character_count(text);
  if (missing <= 0) return std::string(text);
  budget.step(static_cast<std::uint64_t>(missing) / 64);
  budget.require(2 * (text.size() + static_cast<std::size_t>(missing)));
  // Python gives the odd one to the left when the width is odd.
  const std::int64_t before = side == Padding::right    ? 0
                              : side == Padding::center ? missing / 2 + (missing & width & 1)
                                                        : missing;
  const std::size_t sign =
      side == Padding::zeros && (text.starts_with('-') || text.starts_with('+')) ? 1 : 0;
  std::string out(text.substr(0, sign));
  out.append(static_cast<std::size_t>(before), fill).append(text.substr(sign));
  return out.append(static_cast<std::size_t>(missing - before), fill);
}

std::string indented_lines(std::string_view text, std::string_view indent, bool first, bool blank,
                           RenderBudget& budget) {
  std::string out;
  bool is_first = true;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (is_first ? first : blank || !line.empty()) append(out, indent, budget);
    append(out, line, budget);
    if (end < text.size()) append(out, "\n", budget);
    is_first = false;
    at = end + 1;
  }
  return out;
}

}  // namespace lora::text
