#include "lora/text/chat_template.h"

#include <algorithm>

#include "lora/format/json.h"
#include "support/testing.h"

namespace lora {
namespace {

using lora::testing::require_error;

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text";

std::string rendered(std::string_view source, std::string_view messages = "[]") {
  return ChatTemplate::parse(source, "t").render(parse_json(messages, "messages"), {}).text;
}

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
    INFO(name << " on " << label << " " << dump_json(*test.find("variables"), kCompactStyle));
    const ChatTemplate chat =
        ChatTemplate::parse(*golden.find("templates")->find(name)->as_string(), name);
    ChatOptions options;
    options.add_generation_prompt = *test.find("prompt")->as_bool();
    options.bos_token = "<s>";
    options.eos_token = "</s>";
    options.variables = *test.find("variables")->as_object();
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
  refuses("line 1: the test sameas is not supported", "{{ 1 is sameas(1) }}");
  refuses("the function or method strftime_now is not supported", "{{ strftime_now('%Y') }}");
  refuses("a chain of comparisons is not supported", "{{ 1 < 2 < 3 }}");
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
