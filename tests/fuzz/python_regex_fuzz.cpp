// Regular expressions of configurations: the first line is the pattern, the rest what it is
// matched against.
#include "adapter/name_pattern.h"
#include "adapter/python_regex.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  const std::string_view text = fuzz::text_of(data, size);
  const std::string_view pattern = text.substr(0, text.find('\n'));
  const std::string_view subject = text.substr(std::min(text.size(), pattern.size() + 1));
  fuzz::accepts([&] {
    const PythonRegex regex(pattern);
    if (regex.full_match(subject))
      fuzz::require(regex.match(subject), "a full match is a match", std::string(pattern));
  });
  fuzz::accepts([&] { NamePattern(std::string(pattern)).matches(subject); });
  return 0;
}
