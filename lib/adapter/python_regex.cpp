#include "adapter/python_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "format/in_quotes.h"
#include "lora/base/error.h"

namespace lora {

// Steps of one match. A module path needs some hundreds; PCRE2's own ten million take a second,
// and a model has thousands of paths.
constexpr std::uint32_t kMaxSteps = 50'000;
// A step keeps the place of every group: a pattern may have 65,535.
constexpr std::uint32_t kHeapKib = 20 * 1024;
// A step may look through the whole of a name, and no module path comes near.
constexpr std::size_t kLongestSubject = 4096;

struct PythonRegex::Code {
  std::string pattern;
  std::shared_ptr<RegexSteps> steps;
  pcre2_code* compiled = nullptr;
  pcre2_match_context* limits = pcre2_match_context_create(nullptr);

  Code(std::string_view source, std::shared_ptr<RegexSteps> shared_steps)
      : pattern(source), steps(std::move(shared_steps)) {
    pcre2_set_match_limit(limits, kMaxSteps);
    pcre2_set_heap_limit(limits, kHeapKib);
    pcre2_set_callout(limits, count_step, steps.get());
  }
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(compiled);
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  // Called for every part of the pattern that is tried.
  static int count_step(pcre2_callout_block*, void* steps) {
    return static_cast<RegexSteps*>(steps)->take() ? 0 : PCRE2_ERROR_CALLOUT;
  }
};

namespace {

struct MatchData {
  explicit MatchData(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)) {}
  ~MatchData() { pcre2_match_data_free(data); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  pcre2_match_data* data;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

template <typename Code>
bool run(const Code& code, std::string_view subject, std::uint32_t options, MatchData& match) {
  if (subject.size() > kLongestSubject)
    throw Error(ErrorKind::usage, "cannot match the regular expression " + in_quotes(code.pattern) +
                                      " against " + in_quotes(subject) + ": a name of " +
                                      std::to_string(subject.size()) + " bytes, expected at most " +
                                      std::to_string(kLongestSubject));
  const int result = pcre2_match(code.compiled, reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                 subject.size(), 0, options, match.data, code.limits);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  // A name that is not UTF-8 cannot be a Python string.
  if (result <= PCRE2_ERROR_UTF8_ERR1 && result >= PCRE2_ERROR_UTF8_ERR21) return false;
  if (result == PCRE2_ERROR_CALLOUT)
    throw Error(ErrorKind::usage,
                "cannot match the regular expression " + in_quotes(code.pattern) + " against " +
                    in_quotes(subject) + ": the expressions of the configuration take more than " +
                    std::to_string(RegexSteps::kMost) + " steps for all names together");
  if (result < 0)
    throw Error(ErrorKind::usage, "cannot match the regular expression " + in_quotes(code.pattern) +
                                      " against " + in_quotes(subject) + ": " + error_text(result));
  return true;
}

}  // namespace

PythonRegex::PythonRegex(std::string_view pattern, std::shared_ptr<RegexSteps> steps) {
  auto code = std::make_shared<Code>(pattern, std::move(steps));
  const std::string translated = translate_python_pattern(pattern);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  // Python's dot and dollar know one newline, whatever PCRE2 was built with.
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_AUTO_CALLOUT, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code->compiled == nullptr)
    throw Error(ErrorKind::usage, "cannot use the regular expression " + in_quotes(code->pattern) +
                                      ": " + error_text(error));
  code_ = std::move(code);
}

bool PythonRegex::full_match(std::string_view subject) const {
  MatchData match(code_->compiled);
  return run(*code_, subject, PCRE2_ANCHORED | PCRE2_ENDANCHORED, match);
}

bool PythonRegex::match(std::string_view subject) const {
  MatchData match(code_->compiled);
  return run(*code_, subject, PCRE2_ANCHORED, match);
}

std::optional<std::optional<std::string>> PythonRegex::match_group(std::string_view subject,
                                                                   const char* name) const {
  MatchData match(code_->compiled);
  if (!run(*code_, subject, PCRE2_ANCHORED, match)) return std::nullopt;
  const int group =
      pcre2_substring_number_from_name(code_->compiled, reinterpret_cast<PCRE2_SPTR>(name));
  if (group < 0) return std::optional<std::string>();
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.data);
  const PCRE2_SIZE begin = ends[2 * group];
  if (begin == PCRE2_UNSET) return std::optional<std::string>();
  return std::string(subject.substr(begin, ends[2 * group + 1] - begin));
}

}  // namespace lora
