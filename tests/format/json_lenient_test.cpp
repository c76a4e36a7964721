#include "lora/format/json_lenient.h"

#include "support/testing.h"

using namespace lora;

TEST_CASE("of a repeated key the last value counts and its path is reported") {
  const LenientJson json = parse_json_lenient(
      R"({"a": 1, "b": {"c": 2, "d": [{"e": 1, "e": 2}], "c": 3}, "a": 4})", "x");
  REQUIRE(json.repeated_keys == std::vector<std::string>{"b.d.e", "b.c", "a"});
  REQUIRE(json.earlier_values.size() == 3);
  REQUIRE(json.earlier_values[2].as_int() == 1);
  REQUIRE(json.value.find("a")->as_int() == 4);
  REQUIRE(json.value.find("b")->find("c")->as_int() == 3);
}

TEST_CASE("lenient reading refuses everything else that strict reading refuses") {
  REQUIRE(parse_json_lenient("{\"a\": 1}", "x").repeated_keys.empty());
  for (const char* text : {"{", "{\"a\": 1} x", "\xEF\xBB\xBF{}", "{\"a\": NaN}"})
    testing::require_error(ErrorKind::malformed, "cannot parse x as JSON",
                           [&] { parse_json_lenient(text, "x"); });
}
