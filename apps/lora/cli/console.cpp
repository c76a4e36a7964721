#include "cli/console.h"

#include <algorithm>
#include <utility>

namespace lora::cli {
namespace {

std::string_view code_of(Tone tone) {
  switch (tone) {
    case Tone::plain:
      return "";
    case Tone::bold:
      return "\033[1m";
    case Tone::dim:
      return "\033[2m";
    case Tone::red:
      return "\033[1;31m";
    case Tone::yellow:
      return "\033[1;33m";
    case Tone::green:
      return "\033[32m";
    case Tone::cyan:
      return "\033[36m";
  }
  return "";
}

std::string wrap(bool color, Tone tone, std::string_view text) {
  if (!color || tone == Tone::plain) return std::string(text);
  return std::string(code_of(tone)) + std::string(text) + "\033[0m";
}

std::size_t utf8_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const std::size_t length = first < 0x80                    ? 1
                             : first >= 0xC2 && first < 0xE0 ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) return 0;
  // Overlong forms, surrogates and what lies beyond U+10FFFF differ in the second byte.
  const auto second = static_cast<unsigned char>(length > 1 ? text[1] : 0);
  const bool is_wrong = (first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) ||
                        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90);
  return is_wrong ? 0 : length;
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    const bool is_c1_control =
        length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
    if (length == 0 || is_c1_control || (length == 1 && (byte < 0x20 || byte == 0x7F))) {
      for (std::size_t i = 0; i < std::max<std::size_t>(length, 1); ++i) {
        const auto unit = static_cast<unsigned char>(text[i]);
        out += "\\x";
        out += digits[unit >> 4];
        out += digits[unit & 15];
      }
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

Console::Console(const Streams& streams, std::string verb)
    : streams_(streams), verb_(std::move(verb)) {
  configure({});
}

void Console::configure(const Settings& settings) {
  settings_ = settings;
  color_out_ = wants_color(streams_.out_is_terminal);
  color_err_ = wants_color(streams_.err_is_terminal);
}

bool Console::wants_color(bool is_terminal) const {
  if (settings_.color != "auto") return settings_.color == "always";
  const auto set = [&](const char* name) {
    const auto value = streams_.environment(name);
    return value && !value->empty();
  };
  if (set("NO_COLOR")) return false;
  if (set("CLICOLOR_FORCE") && streams_.environment("CLICOLOR_FORCE") != "0") return true;
  return is_terminal && streams_.environment("TERM") != "dumb";
}

void Console::line(std::string_view text) {
  if (!settings_.json) streams_.out << text << '\n';
}

void Console::raw(std::string_view text) {
  if (!settings_.json) streams_.out << text << std::flush;
}

void Console::tagged(Tone tone, std::string_view tag, std::string_view text) {
  streams_.err << "lora" << (verb_.empty() ? "" : " ") << verb_ << ": "
               << wrap(color_err_, tone, tag) << (tag.empty() ? "" : " ") << printable(text)
               << '\n';
}

void Console::note(std::string_view text) {
  if (!settings_.quiet) tagged(Tone::plain, "", text);
}

void Console::warning(std::string_view text) { tagged(Tone::yellow, "warning:", text); }

void Console::error(const Error& error) {
  tagged(Tone::red, "error:", error.message());
  if (!error.hint().empty())
    streams_.err << wrap(color_err_, Tone::cyan, "hint:") << ' ' << printable(error.hint()) << '\n';
}

std::string Console::toned(Tone tone, std::string_view text) const {
  return wrap(color_out_, tone, text);
}

}  // namespace lora::cli
