#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "format/in_quotes.h"
#include "lora/base/error.h"

namespace lora::text {
namespace {

constexpr std::string_view kWhiteSpace =
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";

constexpr std::uint32_t kHeapKib = 32 * 1024;

// Patterns in use look at each character a few times, also in a million blanks in a row.
constexpr std::uint64_t kBaseSteps = 1'000'000;
constexpr std::uint64_t kStepsOfByte = 200;
constexpr std::size_t kBytesOfStep = 16;
constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();

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
  // The reference's patterns are Ruby's: ^ and $ are the ends of a line.
  const std::string pattern = with_unicode_white_space(expression);
  int error_number = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK | PCRE2_AUTO_CALLOUT,
      &error_number, &error_offset, nullptr);
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

struct RegexSearch::State {
  Owner<pcre2_match_data> data{pcre2_match_data_create(1, nullptr), pcre2_match_data_free};
  Owner<pcre2_match_context> limits{pcre2_match_context_create(nullptr), pcre2_match_context_free};
  std::uint64_t steps_left = 0;
  std::size_t place = 0;

  // PCRE2's own limit is one for each place where a match may begin, and a repeated character is a
  // single step however long it is: this is called for every part of the pattern that is tried.
  static int count(pcre2_callout_block* block, void* state_pointer) {
    State& state = *static_cast<State*>(state_pointer);
    const std::size_t place = block->current_position;
    const std::size_t moved = std::max(place, state.place) - std::min(place, state.place);
    const std::uint64_t steps = 1 + moved / kBytesOfStep;
    state.place = place;
    if (steps > state.steps_left) return PCRE2_ERROR_MATCHLIMIT;
    state.steps_left -= steps;
    return 0;
  }
};

RegexSearch::RegexSearch(const Regex& regex, std::string_view text)
    : regex_(regex), text_(text), state_(std::make_shared<State>()) {
  if (!state_->data || !state_->limits)
    throw Error(ErrorKind::resources, "cannot match a pattern: out of memory");
  state_->steps_left = kBaseSteps + kStepsOfByte * text.size();
  pcre2_set_match_limit(state_->limits.get(), kNoLimit);
  pcre2_set_heap_limit(state_->limits.get(), kHeapKib);
  pcre2_set_callout(state_->limits.get(), State::count, state_.get());
}

bool RegexSearch::find(std::size_t from, RegexMatch& match) {
  const auto* code = static_cast<const pcre2_code*>(regex_.code_.get());
  state_->place = from;
  const auto run = [&](std::uint32_t options) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), from,
                       PCRE2_NO_UTF_CHECK | options, state_->data.get(), state_->limits.get());
  };
  int result = run(0);
  // Compiled code has 32 KiB for its stack, the interpreter has the heap.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  // 0 means that the pattern has groups for which there was no room; the match itself is there.
  if (result < 0)
    throw Error(ErrorKind::unsupported,
                "cannot split text with the pattern " + in_quotes(regex_.expression_) + " of " +
                    regex_.context_ + ": " + message_of(result) + " at byte " +
                    std::to_string(from) + " of " + std::to_string(text_.size()))
        .in_file(regex_.context_);
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->data.get());
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
