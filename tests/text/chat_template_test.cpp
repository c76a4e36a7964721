#include "lora/text/chat_template.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text";

// 2026-02-03 04:05:06, as scripts/make_chat_fixtures.py has it.
const std::tm kThirdOfFebruary{6, 5, 4, 3, 1, 126, 2, 33, 0, 0, nullptr};

std::string rendered(std::string_view source, std::string_view messages = "[]") {
  return ChatTemplate::parse(source, "t").render(parse_json(messages, "messages"), {}).text;
}

// What transformers renders and is refused here.
constexpr std::string_view kLeftOut[] = {
    "truncate(",
    "| escape",
    "| e }}",
    "striptags",
    "int(0, 16)",
    "slice(2)",
    "groupby",
    "| attr(",
    "| random",
    "sameas('a')",
    "100000000000000000000",
    "1: 2}",
    "{1: ",
    "startswith('b', 1)",
    "casefold",
    "swapcase",
    "isidentifier",
    "istitle",
    "expandtabs",
    "encode(",
    "keys() }}",
    "args.items() }}",
    "{{ range(3) }}",
    "dict([",
    "fromkeys",
    "cycler(",
    "joiner(",
    "\\N{",
    "{{ ns }}",
    "m.name",
    "autoescape",
    "{% block",
};

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

TEST_CASE("every template renders as transformers renders it, or is refused as there") {
  const Json golden = read_json_file(kGolden / "chat.json");
  std::size_t compared = 0;
  for (const Json& test : *golden.find("cases")->as_array()) {
    const std::string& name = *test.find("template")->as_string();
    const std::string& label = *test.find("conversation")->as_string();
    const std::uint64_t number = *test.find("variables")->as_uint();
    INFO(name << " on " << label << " with variables " << number);
    const ChatTemplate chat =
        ChatTemplate::parse(testing::read_file(kGolden / "chat" / (name + ".jinja")), name);
    ChatOptions options;
    options.add_generation_prompt = *test.find("prompt")->as_bool();
    options.bos_token = "<s>";
    options.eos_token = "</s>";
    options.variables = *(*golden.find("variables")->as_array())[number].as_object();
    options.now = kThirdOfFebruary;
    const Json& messages = *golden.find("conversations")->find(label);
    ++compared;
    if (const Json* error = test.find("error")) {
      INFO("transformers refuses: " << *error->as_string());
      REQUIRE_THROWS_AS(chat.render(messages, options), Error);
      continue;
    }
    const RenderedChat result = chat.render(messages, options);
    REQUIRE(result.text == *test.find("text")->as_string());
    if (const Json* spans = test.find("spans")) {
      REQUIRE(result.generated.size() == spans->as_array()->size());
      for (std::size_t i = 0; i < result.generated.size(); ++i) {
        const JsonArray& span = *(*spans->as_array())[i].as_array();
        const std::string_view text = result.text;
        REQUIRE(characters(text.substr(0, result.generated[i].begin)) == *span[0].as_uint());
        REQUIRE(characters(text.substr(0, result.generated[i].end)) == *span[1].as_uint());
      }
    }
  }
  REQUIRE(compared >= 100);
}

bool is_left_out(std::string_view source) {
  return std::any_of(std::begin(kLeftOut), std::end(kLeftOut),
                     [&](std::string_view part) { return source.find(part) != std::string::npos; });
}

TEST_CASE("every piece of the language is what transformers makes of it, or is refused") {
  const Json golden = read_json_file(kGolden / "jinja.json");
  for (const Json& test : *golden.find("cases")->as_array()) {
    const std::string& source = *test.find("source")->as_string();
    INFO(source);
    const auto render = [&] {
      ChatOptions options;
      options.now = kThirdOfFebruary;
      return ChatTemplate::parse(source, "t").render(*golden.find("messages"), options).text;
    };
    if (const Json* error = test.find("error")) {
      INFO("transformers refuses: " << *error->as_string());
      CHECK_THROWS_AS(render(), Error);
    } else if (is_left_out(source)) {
      INFO("transformers renders: " << *test.find("text")->as_string());
      testing::require_error(ErrorKind::unsupported, "is not supported", render);
    } else {
      CHECK(render() == *test.find("text")->as_string());
    }
  }
}

TEST_CASE("a template that calls raise_exception refuses with its own words and line") {
  require_error(ErrorKind::incompatible, "line 2: the template refuses these messages: no systems",
                [] { rendered("a\n{{ raise_exception('no systems') }}"); });
}

TEST_CASE("an undefined value prints nothing and has no attributes") {
  REQUIRE(rendered("[{{ nobody }}]") == "[]");
  require_error(ErrorKind::incompatible, "'nobody' is undefined",
                [] { rendered("{{ nobody.name }}"); });
  require_error(ErrorKind::incompatible, "cannot apply + to str and the undefined 'nobody'",
                [] { rendered("{{ 'a' + nobody }}"); });
}

TEST_CASE("a construct outside the subset is named with its line") {
  const auto refuses = [](std::string_view part, std::string_view source) {
    require_error(ErrorKind::unsupported, part, [&] { rendered(source); });
  };
  refuses("line 2: {% include %} is not supported", "\n{% include 'x' %}");
  refuses("line 1: the filter wordwrap is not supported", "{{ 'a' | wordwrap }}");
  refuses("line 1: sameas of a int is not supported", "{{ 1 is sameas(1) }}");
  refuses("the function or method strftime_now is not supported", "{{ strftime_now('%Y') }}");
  refuses("the function or method append is not supported", "{{ [].append(1) }}");
  refuses("a range of more than 100000 numbers", "{{ range(100001) }}");
}

TEST_CASE("a template with a syntax error is malformed, with the line") {
  const auto refuses = [](std::string_view part, std::string_view source) {
    require_error(ErrorKind::malformed, part, [&] { rendered(source); });
  };
  refuses("line 3: found the end of the template, expected {% endfor %}", "\n\n{% for a in b %}");
  refuses("an unexpected {% endif %}", "{% endif %}");
  refuses("{{ without }}", "{{ a");
  refuses("a string that does not end", "{{ 'a");
  refuses("a comment that does not end", "{# a");
  refuses("expected an expression", "{{ }}");
  refuses("expected in", "{% for a of b %}{% endfor %}");
  refuses("more than 100 levels of nesting",
          "{{ " + std::string(200, '(') + "1" + std::string(200, ')') + " }}");
  refuses("it is not UTF-8", "\xFF");
}

TEST_CASE("a macro and a loop that call themselves over and over are stopped") {
  require_error(ErrorKind::unsupported, "50 nested calls",
                [] { rendered("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}"); });
  require_error(ErrorKind::unsupported, "50 nested calls", [] {
    rendered("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}");
  });
  std::string nested;
  for (int i = 0; i < 300; ++i) nested += "{% macro m() %}{% endmacro %}";
  require_error(ErrorKind::resources, "nested more than 200 levels",
                [&] { rendered("{% for a in [1] %}" + nested + "{% endfor %}"); });
}

TEST_CASE("what is marked and never shown reaches not over the end of the text") {
  const ChatTemplate chat = ChatTemplate::parse(
      "ab{% set x %}{% generation %}hidden{% endgeneration %}{% endset %}", "t");
  const RenderedChat result = chat.render(Json(JsonArray{}), {});
  REQUIRE(result.text == "ab");
  REQUIRE(result.generated.size() == 1);
  REQUIRE(result.generated[0].begin == 2);
  REQUIRE(result.generated[0].end == 2);
}

TEST_CASE("numbers that would be too large to write are not made") {
  require_error(ErrorKind::unsupported, "beyond 64 bits", [] { rendered("{{ 10 ** 30 }}"); });
  require_error(ErrorKind::unsupported, "beyond 10000", [] { rendered("{{ '%99999d' % 1 }}"); });
  require_error(ErrorKind::unsupported, "beyond 10000", [] { rendered("{{ 'a'.zfill(99999) }}"); });
  REQUIRE(rendered("{{ (-1) ** 9223372036854775807 }}") == "-1");
}

TEST_CASE("a template that does not end is stopped") {
  require_error(ErrorKind::unsupported, "50 nested calls",
                [] { rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"); });
  require_error(ErrorKind::resources, "it does not end after 2", [] {
    rendered("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
  });
}

TEST_CASE("numbers that leave 64 bits and divisions by zero are refused") {
  require_error(ErrorKind::unsupported, "beyond 64 bits",
                [] { rendered("{{ 9223372036854775807 + 1 }}"); });
  require_error(ErrorKind::incompatible, "division by zero", [] { rendered("{{ 1 // 0 }}"); });
  require_error(ErrorKind::incompatible, "division by zero", [] { rendered("{{ 1 / 0 }}"); });
}

TEST_CASE("chat_template.jinja comes before tokenizer_config.json, which may hold named ones") {
  const testing::TempDir dir;
  REQUIRE_FALSE(ChatTemplate::from_directory(dir.path()).has_value());
  testing::write_file(dir / "tokenizer_config.json", R"({"chat_template": "plain"})");
  const auto text = [&](std::string_view name = "default") {
    return ChatTemplate::from_directory(dir.path(), name)->render(JsonArray{}, {}).text;
  };
  REQUIRE(text() == "plain");
  testing::write_file(dir / "tokenizer_config.json",
                      R"({"chat_template": [{"name": "default", "template": "one"},
                                            {"name": "tool_use", "template": "two"}]})");
  REQUIRE(text() == "one");
  REQUIRE(text("tool_use") == "two");
  require_error(ErrorKind::malformed, "found default, tool_use", [&] { text("rag"); });
  testing::write_file(dir / "chat_template.jinja", "file\n");
  REQUIRE(text() == "file");
}

TEST_CASE("answers are found by the difference of renderings, end marker included") {
  const std::string source =
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  const ChatTemplate chat = ChatTemplate::parse(source, "t");
  const Json messages = parse_json(R"([{"role":"user","content":"q"},
      {"role":"assistant","content":"a1"},{"role":"user","content":"r"},
      {"role":"assistant","content":"a2"}])",
                                   "m");
  const RenderedChat result = chat.render(messages, {});
  const auto ranges = assistant_ranges(chat, messages, {}, result);
  REQUIRE(ranges.size() == 2);
  const auto part = [&](const TextRange& range) {
    return result.text.substr(range.begin, range.end - range.begin);
  };
  REQUIRE(part(ranges[0]) == "a1</>\n");
  REQUIRE(part(ranges[1]) == "a2</>\n");
}

TEST_CASE("a template that rewrites earlier turns cannot tell answers apart") {
  const ChatTemplate chat =
      ChatTemplate::parse("{{ messages|length }}:{{ messages[-1].content }}", "t");
  const Json messages = parse_json(R"([{"role":"user","content":"q"},
      {"role":"assistant","content":"a"}])",
                                   "m");
  require_error(ErrorKind::incompatible, "cannot tell answers from prompts",
                [&] { assistant_ranges(chat, messages, {}, chat.render(messages, {})); });
}

TEST_CASE("a set block whose body opens scopes sets its name in the scope around it") {
  const auto rendered = [](const char* source) {
    return ChatTemplate::parse(source, "t").render(Json(JsonArray()), {}).text;
  };
  REQUIRE(rendered("{% set a %}{% for i in [1, 2] %}{% for j in [3, 4] %}{{ i * j }},{% endfor %}"
                   "{% endfor %}{% endset %}[{{ a }}]") == "[3,4,6,8,]");
  REQUIRE(rendered("{% macro m(x) %}{% set a %}{% for i in [x] %}{{ i }}{% endfor %}{% endset %}"
                   "{{ a }}!{% endmacro %}{{ m(1) }}{{ m(2) }}") == "1!2!");
}

}  // namespace
}  // namespace lora
