#include "text/score.h"

#include "support/testing.h"

namespace lora::text {
namespace {

TEST_CASE("scores have the bits that the tokenizers package reads") {
  const auto value = [](std::string_view text) {
    const auto score = read_score(text);
    REQUIRE(score.has_value());
    REQUIRE(score->size == text.size());
    return score->value;
  };
  REQUIRE(value("0") == 0);
  REQUIRE(value("-13") == -13);
  REQUIRE(value("1e2") == 100);
  REQUIRE(value("-0.1") == -0x1.999999999999ap-4);
  REQUIRE(value("-3.2425737380981445") == -0x1.9f0ca8p+1);
  REQUIRE(value("-1.5E-3") == -0x1.89374bc6a7efap-10);
  REQUIRE(value("2.2250738585072014e-308") == 0x1p-1022);
  REQUIRE(value("5e-324") == 0x0.0000000000001p-1022);
  REQUIRE(value("1e-400") == 0);
  REQUIRE(value("12345678901234567890123.5") == 0x1.4ea15b273b38ap+73);
  // The nearest number to each of these is another one.
  REQUIRE(value("-11.283684730529785") == -0x1.6913f1fffffffp+3);
  REQUIRE(value("-10.123456789012345678901234567890") == -0x1.43f35ba6e8decp+3);
}

TEST_CASE("what is no number, or none that a double holds, is no score") {
  for (const char* text : {"", "-", "x", "+1", ".5", "1.", "01", "1e", "1e+", "1e999", "\"1\""}) {
    INFO(text);
    REQUIRE_FALSE(read_score(text).has_value());
  }
  REQUIRE(read_score("1.5]")->size == 3);
}

}  // namespace
}  // namespace lora::text
