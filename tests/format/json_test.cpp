#include "lora/format/json.h"

#include <cmath>
#include <limits>

#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

Json parse(std::string_view text) { return parse_json(text, "test.json"); }

std::string key_of(int i) { return std::string("k") + std::to_string(i); }

void require_refused(std::string_view part, std::string_view text) {
  INFO(text);
  require_error(ErrorKind::malformed, part, [&] { parse(text); });
}

}  // namespace

TEST_CASE("json keeps the kind of every value") {
  const Json value = parse(R"( {"n":null,"b":true,"i":-3,"u":18446744073709551615,"d":3.0,)"
                           R"("e":1e2,"s":"x","a":[1,[]],"o":{}} )");
  REQUIRE(value.find("n")->is_null());
  REQUIRE(value.find("b")->as_bool() == true);
  REQUIRE(value.find("i")->as_int() == -3);
  REQUIRE_FALSE(value.find("i")->as_uint());
  REQUIRE(value.find("i")->as_double() == -3.0);
  REQUIRE(value.find("u")->as_uint() == std::numeric_limits<std::uint64_t>::max());
  REQUIRE_FALSE(value.find("u")->as_int());
  REQUIRE(value.find("d")->as_double() == 3.0);
  REQUIRE_FALSE(value.find("d")->is_integer());
  REQUIRE_FALSE(value.find("d")->as_int());
  REQUIRE_FALSE(value.find("e")->is_integer());
  REQUIRE_FALSE(value.find("b")->as_int());
  REQUIRE(*value.find("s")->as_string() == "x");
  REQUIRE(value.find("a")->as_array()->size() == 2);
  REQUIRE(value.find("o")->as_object()->empty());
  REQUIRE(value.find("absent") == nullptr);
  REQUIRE(value.find("s")->find("x") == nullptr);
  REQUIRE(value.find("d")->type_name() == "number");
  REQUIRE(value.find("i")->type_name() == "integer");
}

TEST_CASE("json keeps members in order") {
  std::string keys;
  const Json value = parse(R"({"z":1,"a":2,"m":3})");
  for (const auto& [key, ignored] : *value.as_object()) keys += key;
  REQUIRE(keys == "zam");
}

TEST_CASE("json refuses what is not strict JSON") {
  for (const std::string_view text :
       {"",        " ",        "{",         "[1,]",    "{\"a\":1,}",  "{a:1}",
        "{'a':1}", "01",       "+1",        "1.",      ".5",          "1e",
        "NaN",     "Infinity", "-Infinity", "nul",     "1 2",         "{} x",
        "// c\n1", "/* c */1", "\"a\nb\"",  "\"\\x\"", "\"\\ud800\"", "\"\\udc00\\ud800\"",
        "\"abc",   "1e999"})
    require_refused("cannot parse test.json as JSON: at byte", text);
}

TEST_CASE("json names the member that Python wrote as no number") {
  require_refused("at byte 19: \"alpha\" is NaN, which Python writes", R"({"r": 4, "alpha": NaN})");
  require_refused("\"a.b\" is -Infinity", R"({"c": 1, "a": {"b": -Infinity}})");
  require_refused("\"a\" is Infinity", R"({"a": [1, Infinity]})");
  require_refused("it is NaN", "NaN");
  REQUIRE(*parse(R"({"a": "NaN"})").find("a") == Json("NaN"));
  try {
    parse(R"({"a": NaN})");
  } catch (const Error& error) {
    REQUIRE(error.hint() == "replace NaN by the number that was meant");
  }
}

TEST_CASE("json refuses text that is not UTF-8") {
  for (const std::string_view text : {"\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
                                      "\"\xF4\x90\x80\x80\"", "\"\xE4\xB8\"", "\x80"})
    require_refused("cannot parse test.json as JSON", text);
  require_refused("byte order mark", "\xEF\xBB\xBF{}");
  require_refused("at byte 3: found a NUL byte", std::string_view("{}\0", 3));
  require_refused("NUL byte", std::string_view("{}\0garbage", 10));
}

TEST_CASE("json refuses duplicate keys at every level and however they are spelled") {
  require_refused("duplicate key \"a\"", R"({"a":1,"a":1})");
  require_refused("duplicate key \"a\"", R"([{"b":{"a":1,"\u0061":2}}])");
  std::string large = "{";
  for (int i = 0; i < 1000; ++i) large += dump_json(Json(key_of(i))) + ":0,";
  require_refused("duplicate key \"k500\"", large + "\"k500\":1}");
  REQUIRE(parse(R"([{"a":1},{"a":1}])").as_array()->size() == 2);
}

TEST_CASE("json refuses nesting beyond 128 levels") {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  REQUIRE(parse(nested(128)).is_array());
  require_refused("nested deeper than 128 levels", nested(129));
  require_refused("nested deeper than 128 levels", std::string(1'000'000, '['));
}

TEST_CASE("json refuses values that take more memory than their text justifies") {
  const auto repeated = [](std::size_t count, const std::string& item) {
    std::string text = "[";
    for (std::size_t i = 0; i < count; ++i) text += item + ",";
    return text + item + "]";
  };
  constexpr std::string_view kReason = "more memory than a file of its size justifies";
  REQUIRE(parse(repeated(100'000, "0")).as_array()->size() == 100'001);
  require_refused(kReason, repeated(270'000, "0"));
  require_refused(kReason, repeated(270'000, "[]"));
  std::string members = "{\"a\":1";
  for (int i = 0; i < 150'000; ++i) members += ",\"" + std::to_string(i) + "\":1";
  require_refused(kReason, members + "}");
}

TEST_CASE("json refuses strings and numbers that are too long") {
  const std::string long_text(std::size_t{16} << 20, 'x');
  REQUIRE(parse("[\"" + long_text.substr(0, 1 << 20) + "\"]").as_array()->size() == 1);
  require_refused("a string or number of more than 16777216 bytes", "[\"" + long_text + "\"]");
  require_refused("a string or number of more than", "{\"" + long_text + "\": 1}");
  require_refused("a string or number of more than", "[1, " + std::string(17 << 20, '1') + "]");
  // An escaped quote does not end a string.
  std::string escaped;
  for (int i = 0; i < (9 << 20); ++i) escaped += "\\\"";
  require_refused("a string or number of more than", "[\"" + escaped + "\"]");
}

TEST_CASE("json files are small configurations") {
  const testing::TempDir folder;
  const auto refused = [&](std::string_view part, const std::string& text) {
    testing::write_file(folder / "x.json", text);
    testing::require_error(ErrorKind::malformed, part, [&] { read_json_file(folder / "x.json"); });
  };
  refused("expected at most 8388608", "[" + std::string(9 << 20, ' ') + "]");
  refused("more than 2097152 bytes", "[\"" + std::string(3 << 20, 'x') + "\"]");
  testing::write_file(folder / "x.json", "[\"" + std::string(1 << 20, 'x') + "\"]");
  REQUIRE(read_json_file(folder / "x.json").as_array()->size() == 1);
}

TEST_CASE("json messages stay on one short line") {
  try {
    parse("\"" + std::string(100'000, 'x') + "\xFF\n");
    FAIL("no error was thrown");
  } catch (const Error& error) {
    REQUIRE(error.message().size() < 300);
    REQUIRE(error.message().find('\n') == std::string::npos);
    REQUIRE(error.file() == "test.json");
  }
}

TEST_CASE("json decodes escapes") {
  REQUIRE(*parse(R"("\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00")").as_string() ==
          std::string("\"\\/\b\f\n\r\t\0\xC3\xA9\xF0\x9F\x98\x80", 15));
}

TEST_CASE("json dumps as Python's json.dumps with indent 2 and sorted keys") {
  const Json value(JsonObject{{"z", JsonArray{1, 2}},
                              {"a", JsonObject{}},
                              {"e", JsonArray{}},
                              {"m", JsonObject{{"\xC3\xA9", nullptr}, {"B", true}}}});
  REQUIRE(
      dump_json(value, kPythonConfigStyle) ==
      "{\n  \"a\": {},\n  \"e\": [],\n  \"m\": {\n    \"B\": true,\n    \"\\u00e9\": null\n  },\n"
      "  \"z\": [\n    1,\n    2\n  ]\n}");
  REQUIRE(dump_json(value, JsonStyle{}) ==
          "{\"z\": [1, 2], \"a\": {}, \"e\": [], \"m\": {\"\xC3\xA9\": null, \"B\": true}}");
  REQUIRE(dump_json(value, kCompactStyle) ==
          "{\"z\":[1,2],\"a\":{},\"e\":[],\"m\":{\"\xC3\xA9\":null,\"B\":true}}");
}

TEST_CASE("json spells numbers as Python's repr") {
  const std::pair<double, const char*> cases[] = {
      {16.0, "16.0"},
      {0.0, "0.0"},
      {-0.0, "-0.0"},
      {0.1, "0.1"},
      {1e-4, "0.0001"},
      {1e-5, "1e-05"},
      {1.5e-7, "1.5e-07"},
      {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},
      {123456789012345680.0, "1.2345678901234568e+17"},
      {1e100, "1e+100"},
      {5e-324, "5e-324"},
      {1.7976931348623157e308, "1.7976931348623157e+308"},
      {9007199254740993.0, "9007199254740992.0"},
      {1.0 / 3.0, "0.3333333333333333"}};
  for (const auto& [value, text] : cases) REQUIRE(dump_json(Json(value)) == text);
  REQUIRE(dump_json(Json(std::numeric_limits<std::uint64_t>::max())) == "18446744073709551615");
  REQUIRE(dump_json(Json(std::numeric_limits<std::int64_t>::min())) == "-9223372036854775808");
  REQUIRE(dump_json(Json(std::nan(""))) == "\"nan\"");
  REQUIRE(dump_json(Json(-std::numeric_limits<double>::infinity())) == "\"-inf\"");
}

TEST_CASE("json escapes strings as Python does") {
  const std::string text =
      std::string("\0\x1f\x7f\"\\/\b\f\n\r\t", 11) + "\xC3\xA9\xF0\x9F\x98\x80";
  REQUIRE(dump_json(Json(text), kPythonConfigStyle) ==
          R"("\u0000\u001f\u007f\"\\/\b\f\n\r\t\u00e9\ud83d\ude00")");
  REQUIRE(dump_json(Json(text), kCompactStyle) == R"("\u0000\u001f)"
                                                  "\x7f"
                                                  R"(\"\\/\b\f\n\r\t)"
                                                  "\xC3\xA9\xF0\x9F\x98\x80\"");
}

TEST_CASE("json dumps a valid document even for bytes that are not UTF-8") {
  for (const std::string text :
       {"\xFF", "a\xC3", "\xED\xA0\x80", "\xF8\x88\x80\x80\x80", "\xE4\x41"}) {
    REQUIRE(parse(dump_json(Json(text), kCompactStyle)).is_string());
    REQUIRE(parse(dump_json(Json(text), kPythonConfigStyle)).is_string());
  }
  REQUIRE(dump_json(Json("a\xFF"
                         "b"),
                    kPythonConfigStyle) == "\"a\\ufffdb\"");
  REQUIRE(dump_json(Json("a\xC3\xA9\xFF"), kCompactStyle) == "\"a\xC3\xA9\xEF\xBF\xBD\"");
}

TEST_CASE("json objects of every size find, replace and erase members") {
  for (const int size : {1, 16, 17, 18, 5000}) {
    JsonObject object;
    for (int i = 0; i < size; ++i) object[key_of(i)] = i;
    REQUIRE(object.size() == static_cast<std::size_t>(size));
    for (int i = 0; i < size; ++i) REQUIRE(object.find(key_of(i))->as_int() == i);
    REQUIRE(object.find("none") == nullptr);
    object["k0"] = "replaced";
    REQUIRE(object.size() == static_cast<std::size_t>(size));
    REQUIRE(object.erase("k0"));
    REQUIRE_FALSE(object.erase("k0"));
    REQUIRE(object.find("k0") == nullptr);
    for (int i = 1; i < size; ++i) REQUIRE(object.find(key_of(i))->as_int() == i);
    object["new"] = true;
    REQUIRE(object.find("new")->as_bool() == true);
    const JsonObject copy = object;
    REQUIRE(copy == object);
  }
}

TEST_CASE("json objects are equal whatever the order of members") {
  REQUIRE(parse(R"({"a":1,"b":[2]})") == parse(R"({"b":[2],"a":1})"));
  REQUIRE_FALSE(parse(R"({"a":1})") == parse(R"({"a":1,"b":1})"));
  REQUIRE_FALSE(parse(R"({"a":1})") == parse(R"({"a":1.0})"));
  REQUIRE_FALSE(parse("[1,2]") == parse("[2,1]"));
}

TEST_CASE("json reads files") {
  const testing::TempDir dir;
  testing::write_file(dir / "x.json", "[1]");
  REQUIRE(read_json_file(dir / "x.json").as_array()->size() == 1);
  testing::write_file(dir / "empty.json", "");
  require_error(ErrorKind::malformed, "empty.json", [&] { read_json_file(dir / "empty.json"); });
  require_error(ErrorKind::not_found, "none.json", [&] { read_json_file(dir / "none.json"); });
}

}  // namespace lora
