#include "text/chat_text.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// Python also strips the four separators U+001C to U+001F.
bool is_python_space(std::uint32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view character_at(std::string_view text, std::size_t position) {
  return text.substr(position, utf8_length(static_cast<unsigned char>(text[position])));
}

bool is_space(std::string_view character) {
  std::size_t length = 0;
  return is_python_space(utf8_at(character, 0, length));
}

// Characters of well-formed text begin where their first byte is.
bool holds(std::string_view set, std::string_view character) {
  return set.find(character) != std::string_view::npos;
}

using Parts = std::vector<std::string_view>;

void append_part(Parts& parts, std::string_view part, RenderBudget& budget) {
  budget.step();
  budget.require((parts.size() + 1) * (2 * sizeof(std::string_view)));
  parts.push_back(part);
}

Parts words_of(std::string_view text, RenderBudget& budget) {
  Parts parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view character = character_at(text, i);
    if (is_space(character)) {
      if (begin != i) append_part(parts, text.substr(begin, i - begin), budget);
      begin = i + character.size();
    }
    i += character.size();
  }
  if (begin != text.size()) append_part(parts, text.substr(begin), budget);
  return parts;
}

// At most `limit` words, then what is left without white space where it was cut.
Parts some_words_of(std::string_view text, std::int64_t limit, bool from_right,
                    RenderBudget& budget) {
  Parts parts;
  const auto trimmed = [&](std::string_view rest) {
    return stripped(rest, nullptr, !from_right, from_right);
  };
  for (text = trimmed(text); !text.empty() && limit > 0; --limit) {
    std::size_t end = from_right ? text.size() : 0;
    if (from_right) {
      while (end > 0 &&
             !is_space(text.substr(utf8_previous(text, end), end - utf8_previous(text, end))))
        end = utf8_previous(text, end);
    } else {
      while (end < text.size() && !is_space(character_at(text, end)))
        end += character_at(text, end).size();
    }
    append_part(parts, from_right ? text.substr(end) : text.substr(0, end), budget);
    text = trimmed(from_right ? text.substr(0, end) : text.substr(end));
  }
  if (!text.empty()) append_part(parts, text, budget);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::int64_t character_count(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80; });
}

std::size_t find_part(std::string_view text, std::string_view part, std::size_t from) {
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

std::string_view stripped(std::string_view text, const std::string* set, bool left, bool right) {
  const auto goes = [&](std::string_view character) {
    return set != nullptr ? holds(*set, character) : is_space(character);
  };
  while (left && !text.empty()) {
    const std::string_view first = character_at(text, 0);
    if (!goes(first)) break;
    text.remove_prefix(first.size());
  }
  while (right && !text.empty()) {
    const std::size_t last = utf8_previous(text, text.size());
    if (!goes(text.substr(last))) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string mapped(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string out;
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const auto code_point = static_cast<utf8proc_int32_t>(utf8_at(text, i, length));
    // The one letter in wide use whose upper case is two letters.
    if (map == utf8proc_toupper && code_point == 0xDF) {
      out += "SS";
    } else {
      append_utf8(out, static_cast<std::uint32_t>(map(code_point)));
    }
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return {};
  const std::size_t first = character_at(text, 0).size();
  return mapped(text.substr(0, first), utf8proc_totitle) +
         mapped(text.substr(first), utf8proc_tolower);
}

std::string titled(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view character = character_at(text, i);
    std::size_t length = 0;
    const bool is_letter = contains(letter_ranges(), utf8_at(character, 0, length));
    if (is_letter) {
      out += mapped(character, in_word ? utf8proc_tolower : utf8proc_totitle);
    } else {
      out += character;
    }
    in_word = is_letter;
    i += character.size();
  }
  return out;
}

std::string titled_words(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view character = character_at(text, i);
    const bool ends = is_space(character) || holds("-({[<", character);
    out += ends ? std::string(character)
                : mapped(character, in_word ? utf8proc_tolower : utf8proc_toupper);
    in_word = !ends;
    i += character.size();
  }
  return out;
}

namespace {

bool has_case(std::string_view text, bool upper) {
  bool has_letter = false;
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const auto c = static_cast<utf8proc_int32_t>(utf8_at(text, i, length));
    if (upper ? utf8proc_islower(c) : utf8proc_isupper(c)) return false;
    has_letter = has_letter || (upper ? utf8proc_isupper(c) : utf8proc_islower(c));
  }
  return has_letter;
}

}  // namespace

bool is_upper(std::string_view text) { return has_case(text, true); }
bool is_lower(std::string_view text) { return has_case(text, false); }

bool holds_only(std::string_view text, CharacterKind kind) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const std::uint32_t c = utf8_at(text, i, length);
    const bool may_be_digit =
        kind == CharacterKind::digit || kind == CharacterKind::letter_or_digit;
    const bool is_digit = c >= '0' && c <= '9';
    const bool is_letter = contains(letter_ranges(), c);
    if (may_be_digit && c > 0x7F && !is_letter && !is_python_space(c))
      throw TemplateFault{ErrorKind::unsupported, "telling digits beyond ASCII"};
    const bool fits = kind == CharacterKind::space ? is_python_space(c)
                      : kind == CharacterKind::digit
                          ? is_digit
                          : is_letter || (is_digit && kind == CharacterKind::letter_or_digit);
    if (!fits) return false;
  }
  return !text.empty();
}

std::string reversed(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t last = utf8_previous(text, text.size());
    out += text.substr(last);
    text = text.substr(0, last);
  }
  return out;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::int64_t limit, RenderBudget& budget) {
  std::string out;
  if (from.empty()) {
    for (std::size_t i = 0; limit != 0; --limit) {
      budget.require(2 * (out.size() + to.size() + text.size()));
      budget.look_through(to.size() + 64);
      out += to;
      if (i == text.size()) return out;
      const std::string_view character = character_at(text, i);
      out += character;
      i += character.size();
      if (limit == 1) return out.append(text.substr(i));
    }
    return std::string(text);
  }
  std::size_t covered = 0;
  for (std::size_t at = find_part(text, from); at != std::string_view::npos && limit != 0;
       at = find_part(text, from, covered)) {
    budget.require(2 * (out.size() + at - covered + to.size()));
    budget.look_through(to.size());
    out.append(text, covered, at - covered).append(to);
    covered = at + from.size();
    --limit;
  }
  return out.append(text, covered);
}

Value split(std::string_view text, const std::string* mark, std::int64_t limit, bool from_right,
            RenderBudget& budget) {
  Parts parts;
  if (mark == nullptr) {
    parts = limit >= 0 ? some_words_of(text, limit, from_right, budget) : words_of(text, budget);
  } else {
    if (mark->empty()) throw TemplateFault{ErrorKind::incompatible, "split got an empty separator"};
    for (; limit != 0; --limit) {
      if (from_right) budget.look_through(mark->size());
      const std::size_t at = from_right ? text.rfind(*mark) : find_part(text, *mark);
      if (at == std::string_view::npos) break;
      const std::string_view after = text.substr(at + mark->size());
      append_part(parts, from_right ? after : text.substr(0, at), budget);
      text = from_right ? text.substr(0, at) : after;
    }
    append_part(parts, text, budget);
    if (from_right) std::reverse(parts.begin(), parts.end());
  }
  List out;
  budget.require(parts.size() * sizeof(Value));
  out.reserve(parts.size());
  for (const std::string_view part : parts) out.push_back(budget.text(std::string(part)));
  return budget.list(std::move(out));
}

Value lines_of(std::string_view text, bool keeps_ends, RenderBudget& budget) {
  // Python ends a line at these, too, besides \n, \r and both together.
  const auto ends_line = [](std::uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  List out;
  std::size_t begin = 0;
  std::size_t length = 0;
  const auto add = [&](std::size_t end, std::size_t next) {
    budget.step();
    budget.require(2 * (out.size() + 1) * sizeof(Value));
    out.push_back(budget.text(std::string(text.substr(begin, (keeps_ends ? next : end) - begin))));
    begin = next;
  };
  for (std::size_t i = 0; i < text.size(); i += length) {
    if (!ends_line(utf8_at(text, i, length))) continue;
    if (text.substr(i).starts_with("\r\n")) length = 2;
    add(i, i + length);
  }
  if (begin < text.size()) add(text.size(), text.size());
  return budget.list(std::move(out));
}

Value characters(std::string_view text, RenderBudget& budget) {
  List out;
  const auto count = static_cast<std::size_t>(character_count(text));
  budget.step(count);
  budget.require(count * sizeof(Value));
  out.reserve(count);
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view character = character_at(text, i);
    out.push_back(budget.text(std::string(character)));
    i += character.size();
  }
  return budget.list(std::move(out));
}

std::string joined(const List& items, std::string_view separator, RenderBudget& budget) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string item = budget.printed(items[i]);
    budget.require(2 * (out.size() + separator.size() + item.size()));
    budget.look_through(separator.size() + item.size());
    out.append(i == 0 ? "" : separator).append(item);
  }
  return out;
}

}  // namespace lora::text
