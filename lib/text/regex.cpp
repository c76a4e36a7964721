#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "format/in_quotes.h"
#include "lora/base/error.h"

namespace lora::text {
namespace {

constexpr std::string_view kWhiteSpace =
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";

constexpr std::uint32_t kHeapKib = 32 * 1024;

// Patterns in use go back over each character a few times at most; a million blanks in a row are
// text too.
std::uint32_t steps_for(std::size_t size) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(100'000 + 16 * size, 2'000'000'000));
}

template <typename T>
using Owner = std::unique_ptr<T, void (*)(T*)>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Spells \s and \S out: PCRE2's also take U+180E for white space, which Unicode gave up in 6.3.
std::string with_unicode_white_space(std::string_view expression) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      if (escaped == 's' && in_class) {
        out += kWhiteSpace;
      } else if (!in_class && (escaped == 's' || escaped == 'S')) {
        out.append(escaped == 's' ? "[" : "[^").append(kWhiteSpace) += ']';
      } else {
        (out += c) += escaped;
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

Regex::Regex(const std::string& expression, std::string_view context)
    : expression_(expression), context_(context) {
  const std::string pattern = with_unicode_white_space(expression);
  int error_number = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error_number,
                                   &error_offset, nullptr);
  if (code == nullptr) {
    throw Error(ErrorKind::unsupported, "cannot compile the pattern " + in_quotes(expression) +
                                            " of " + std::string(context) + ": " +
                                            message_of(error_number) + " at offset " +
                                            std::to_string(error_offset))
        .in_file(std::string(context));
  }
  code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  // Where the processor has no JIT the interpreter gives the same matches.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

bool Regex::find(std::string_view text, std::size_t from, RegexMatch& match) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const Owner<pcre2_match_data> data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const Owner<pcre2_match_context> limits(pcre2_match_context_create(nullptr),
                                          pcre2_match_context_free);
  if (!data || !limits) throw Error(ErrorKind::resources, "cannot match a pattern: out of memory");
  pcre2_set_match_limit(limits.get(), steps_for(text.size() - from));
  pcre2_set_heap_limit(limits.get(), kHeapKib);
  const auto run = [&](std::uint32_t options) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, data.get(), limits.get());
  };
  int result = run(0);
  // Compiled code has 32 KiB for its stack, the interpreter has the heap.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  // 0 means that the pattern has groups for which there was no room; the match itself is there.
  if (result < 0)
    throw Error(ErrorKind::unsupported,
                "cannot split text with the pattern " + in_quotes(expression_) + " of " + context_ +
                    ": " + message_of(result) + " at byte " + std::to_string(from) + " of " +
                    std::to_string(text.size()))
        .in_file(context_);
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
  match = {offsets[0], offsets[1]};
  return true;
}

std::string escape_for_regex(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const bool is_plain = static_cast<unsigned char>(c) >= 0x80 || (c >= '0' && c <= '9') ||
                          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!is_plain) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

}  // namespace lora::text
