#include "lora/format/json_stream.h"

#include <algorithm>

#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Streamed {
  Json rest;
  std::vector<std::string> members;
};

Streamed stream(const std::string& text, const std::vector<JsonPlace>& places) {
  const TempDir folder;
  write_file(folder / "x.json", text);
  Streamed result;
  result.rest = stream_json_file(
      folder / "x.json", places, [&](std::size_t place, const std::string& key, const Json& value) {
        const std::string member =
            std::to_string(place) + ":" + key + "=" + dump_json(value, kCompactStyle);
        const bool is_new =
            std::find(result.members.begin(), result.members.end(), member) == result.members.end();
        result.members.push_back(member);
        return is_new;
      });
  return result;
}

std::string map_of(std::size_t members, const std::string& value) {
  std::string text = "{\"m\":{";
  for (std::size_t i = 0; i < members; ++i)
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":" + value;
  return text + "}}";
}

}  // namespace

TEST_CASE("members of streamed objects are handed over in order and left out of the rest") {
  const auto result = stream(R"({"a": 1, "m": {"x": [1, {"y": 2}], "b": {}}, "n": {"k": null},
                                 "o": {"m": {"z": 3}}})",
                             {{"m"}, {"o", "m"}});
  REQUIRE(result.members == std::vector<std::string>{R"(0:x=[1,{"y":2}])", "0:b={}", "1:z=3"});
  REQUIRE(dump_json(result.rest, kCompactStyle) == R"({"a":1,"m":{},"n":{"k":null},"o":{"m":{}}})");
}

TEST_CASE("a place is the object there and no other of that name") {
  const auto result = stream(R"({"a": {"m": {"x": 1}}, "l": [{"m": {"x": 1}}], "a.m": {"x": 1},
                                 "m": [1]})",
                             {{"m"}, {"a", "m", "x"}, {"l", "m"}});
  REQUIRE(result.members.empty());
  REQUIRE(dump_json(*result.rest.find("m"), kCompactStyle) == "[1]");
}

TEST_CASE("a streamed member that was there before is a duplicate key") {
  require_error(ErrorKind::malformed, "duplicate key \"x\"",
                [] { stream(R"({"m": {"x": 1, "x": 1}})", {{"m"}}); });
  require_error(ErrorKind::malformed, "duplicate key \"m\"",
                [] { stream(R"({"m": {"x": 1}, "m": {"y": 1}})", {{"m"}}); });
}

TEST_CASE("streamed files may be long and not full of tiny members") {
  const std::size_t long_enough = 45'000;
  REQUIRE(stream(map_of(1000, "{\"a\":[1,2,3]}"), {{"m"}}).members.size() == 1000);
  const TempDir folder;
  std::size_t count = 0;
  const auto counting = [&](std::size_t, const std::string&, const Json&) { return ++count > 0; };
  // 9 MB of text: as one value it would be refused.
  const std::string text = map_of(long_enough, '"' + std::string(200, 'v') + '"');
  write_file(folder / "long.json", text);
  stream_json_file(folder / "long.json", {{"m"}}, counting);
  REQUIRE(count == long_enough);
  require_error(ErrorKind::malformed, "expected at most 8388608",
                [&] { read_json_file(folder / "long.json"); });
  write_file(folder / "tiny.json", map_of(200'000, "1"));
  require_error(ErrorKind::malformed, "more memory than a file of its size justifies",
                [&] { stream_json_file(folder / "tiny.json", {{"m"}}, counting); });
}
