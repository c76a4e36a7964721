#include "text/scanner.h"

#include <string>
#include <vector>

#include "lora/base/random.h"
#include "support/testing.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// Characters whose class has not changed since long, with every kind of boundary among them.
std::string random_text(std::uint64_t seed) {
  static const std::vector<std::uint32_t> kPool{
      'a',  'S',   's',  't',    'r',    'e',   'L',    'l',     'v',    'm',    'd',
      '\'', '\'',  ' ',  ' ',    ' ',    '\n',  '\r',   '\t',    '1',    '2',    '!',
      '.',  '-',   '_',  0x17F,  0xE9,   0x300, 0xA0,   0x85,    0x2003, 0x2028, 0x3000,
      0xB2, 0x663, 0xBD, 0x4F60, 0xAC00, 0x5D0, 0x200D, 0x1F600, 0,      0x1B,   0x10FFFF};
  const CounterRandom random(seed, 1);
  std::string text;
  const std::uint64_t length = 1 + random.below(0, 40);
  for (std::uint64_t i = 1; i <= length; ++i)
    append_utf8(text, kPool[random.below(i, kPool.size())]);
  return text;
}

TEST_CASE("the hand-written scanners cut as their regular expressions do") {
  for (const KnownPattern pattern :
       {KnownPattern::gpt2, KnownPattern::llama3, KnownPattern::qwen2}) {
    REQUIRE(known_pattern(expression_of(pattern)) == pattern);
    const Scanner scanner(pattern);
    const Regex regex(std::string(expression_of(pattern)), "test");
    for (std::uint64_t seed = 0; seed < 3000; ++seed) {
      const std::string text = random_text(seed);
      RegexSearch search(regex, text);
      std::size_t start = 0;
      while (start < text.size()) {
        RegexMatch match;
        REQUIRE(search.find(start, match));
        if (match.begin != start || match.end != scanner.next(text, start)) {
          INFO("seed " << seed << " at byte " << start);
          REQUIRE(match.begin == start);
          REQUIRE(match.end == scanner.next(text, start));
        }
        start = match.end;
      }
    }
  }
}

TEST_CASE("a pattern that is not one of the known ones is not taken for one") {
  REQUIRE_FALSE(known_pattern("\\s+").has_value());
}

}  // namespace
}  // namespace lora::text
