#include <chrono>
#include <string>

#include "lora/format/json.h"
#include "lora/text/chat_template.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;

std::string rendered(std::string_view source, const Json& messages = JsonArray{}) {
  return ChatTemplate::parse(source, "dir/t.jinja").render(messages, {}).text;
}

// Refused in seconds, by name of the template and of what it ran out of.
void stops(std::string_view limit, std::string_view source, const Json& messages = JsonArray{}) {
  INFO(source);
  const auto begin = std::chrono::steady_clock::now();
  require_error(ErrorKind::resources, "cannot use chat template dir/t.jinja, line 1: ", [&] {
    rendered(source, messages);
  });
  require_error(ErrorKind::resources, limit, [&] { rendered(source, messages); });
  REQUIRE(std::chrono::steady_clock::now() - begin < std::chrono::seconds(60));
}

std::string repeated(const std::string& text, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

constexpr const char* kSteps = "it does not end after 2";
constexpr const char* kBytes = "its values take more than 32 MiB";
constexpr const char* kDepth = "nested more than 200 levels deep";

TEST_CASE("loops in loops are stopped") {
  std::string loops = "x";
  for (int i = 0; i < 5; ++i) loops = "{% for i in range(100000) %}" + loops + "{% endfor %}";
  stops(kSteps, loops);
  require_error(ErrorKind::unsupported, "a range of more than 100000 numbers",
                [] { rendered("{% for i in range(10 * 100000000) %}x{% endfor %}"); });
}

TEST_CASE("text that doubles is stopped before it is made") {
  const auto doubled = [](const std::string& step) {
    return "{% set n = namespace(s='0123456789abcdef') %}{% for i in range(60) %}" + step +
           "{% endfor %}{{ n.s | length }}";
  };
  stops(kBytes, doubled("{% set n.s = n.s ~ n.s %}"));
  stops(kBytes, doubled("{% set n.s = n.s + n.s %}"));
  stops(kBytes, doubled("{% set n.s = n.s * 1000000000000000000 %}"));
  stops(kBytes, doubled("{% set n.s = n.s | replace('0', n.s) %}"));
  stops(kBytes, doubled("{% set n.s = [n.s, n.s] | join(n.s) %}"));
  stops(kBytes, doubled("{% set n.s = n.s.join([n.s, n.s]) %}"));
  stops(kBytes, "{% set s = 'x' %}" + repeated("{% set s %}{{ s }}{{ s }}{% endset %}", 60));
}

TEST_CASE("text that a template keeps is counted until it lets go of it") {
  const std::string long_text = "{% set n = namespace(s='0123456789abcdef' * 65536, all=[]) %}";
  stops(kBytes,
        long_text + "{% for i in range(100) %}{% set n.all = n.all + [n.s ~ i] %}{% endfor %}");
  stops(kBytes, long_text + "{% for i in range(100) %}{{ n.s }}{% endfor %}");
  REQUIRE(rendered(long_text + "{% for i in range(20) %}{% set n.all = n.s ~ i %}{% endfor %}{{ "
                               "n.all | length }}") == std::to_string((1 << 20) + 2));
}

TEST_CASE("what holds one value many times is not written out") {
  const std::string many =
      "{% set n = namespace(l=['x']) %}{% for i in range(100) %}"
      "{% set n.l = [n.l, n.l] %}{% endfor %}";
  stops(kSteps, many + "{{ n.l }}");
  stops(kSteps, many + "{{ n.l | tojson }}");
  stops(kSteps, many + "{{ n.l == [n.l[0], n.l[1]] }}");
  stops(kBytes,
        "{% set n = namespace(l=['x']) %}{% for i in range(60) %}"
        "{% set n.l = n.l + n.l %}{% endfor %}");
}

TEST_CASE("values nested without end and values that hold themselves are refused") {
  stops(kDepth,
        "{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}"
        "{% endfor %}");
  stops(kDepth,
        "{% set n = namespace(l={}) %}{% for i in range(100000) %}{% set n.l = {'a': n.l.get} %}"
        "{% endfor %}");
  for (const char* own : {"n", "[n]", "{'a': n}"}) {
    INFO(own);
    require_error(ErrorKind::unsupported, "a namespace inside another value is not supported", [&] {
      rendered("{% set n = namespace() %}{% set n.own = " + std::string(own) + " %}{{ n }}");
    });
  }
  REQUIRE(rendered("{% set n = namespace(l=[1]) %}{% set n.l = [n.l, {'a': n.l}] %}{{ n.l }}") ==
          "[[1], {'a': [1]}]");
}

TEST_CASE("deep expressions and macros that call themselves are stopped") {
  stops("more than 1000 levels", "{{ 1" + repeated(" + 1", 5000) + " }}");
  stops("more than 1000 levels", "{{ 1" + repeated(" if 1", 5000) + " }}");
  stops("more than 1000 levels", "{{ a" + repeated(" | list", 5000) + " }}");
  const std::string call = repeated("[", 28) + "m()" + repeated("]", 28);
  stops("more than 1000 levels", "{% macro m() %}{{ " + call + " }}{% endmacro %}{{ m() }}");
  REQUIRE(rendered("{{ 1" + repeated(" + 1", 400) + " }}") == "401");
}

TEST_CASE("searches of long texts cost steps") {
  const std::string text = "{% set s = 'a' * 4000000 %}{% set t = 'a' * 2000000 ~ 'b' %}";
  for (const char* search : {"t in s", "s.count(t)", "s.find(t)", "s == t ~ 1", "s | length",
                             "s | trim | length", "s.split('b') | length"}) {
    stops(kSteps, text + "{% for i in range(10000) %}{{ " + search + " }}{% endfor %}");
  }
}

TEST_CASE("an indent of a tree in JSON has a bound") {
  require_error(ErrorKind::unsupported, "an indent of more than 16",
                [] { rendered("{{ [1] | tojson(indent=2000000000) }}"); });
  REQUIRE(rendered("{{ [1] | tojson(indent=-5) }}") == "[\n1\n]");
}

TEST_CASE("long messages may be looked at as often as templates do") {
  JsonArray messages;
  for (int i = 0; i < 1000; ++i)
    messages.push_back(JsonObject{{"role", i % 2 == 0 ? "user" : "assistant"},
                                  {"content", repeated("Some words of a person. ", 400)}});
  const std::string text = rendered(
      "{% for m in messages %}{% set content = m.content | trim %}{% if '</think>' in content %}"
      "{% set content = content.split('</think>')[-1] %}{% endif %}"
      "{{ '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}{% endfor %}",
      messages);
  REQUIRE(text.size() > 9'000'000);
}

TEST_CASE("a template of more than 256 KiB is refused") {
  const std::string source = repeated("words", 50'000);
  REQUIRE(rendered(source) == source);
  require_error(ErrorKind::malformed, "found 300000 bytes, expected at most 262144",
                [&] { rendered(source + source.substr(0, 50'000)); });
}

}  // namespace
}  // namespace lora
