#include "adapter/python_regex.h"

#include "adapter/golden.h"
#include "adapter/name_pattern.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::golden;

/// The verdict of one engine for every name, or nullopt when the expression was refused.
template <typename Build, typename Match>
std::optional<std::vector<bool>> verdicts(const JsonArray& names, Build build, Match match) {
  try {
    const auto regex = build();
    std::vector<bool> result;
    for (const Json& name : names) result.push_back(match(regex, *name.as_string()));
    return result;
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::usage);
    return std::nullopt;
  }
}

std::optional<std::vector<bool>> recorded(const Json& answers) {
  if (answers.is_null()) return std::nullopt;
  std::vector<bool> result;
  for (const Json& answer : *answers.as_array()) result.push_back(*answer.as_bool());
  return result;
}

TEST_CASE("expressions match and are refused as by Python's re") {
  const Json document = read_json_file(golden("patterns.json"));
  const JsonArray& names = *document.find("names")->as_array();
  const JsonArray& rows = *document.find("patterns")->as_array();
  REQUIRE(rows.size() > 40);
  for (const Json& row : rows) {
    const std::string pattern = *row.find("pattern")->as_string();
    INFO(pattern);
    CHECK(verdicts(
              names, [&] { return PythonRegex(pattern); },
              [](const PythonRegex& regex, const std::string& name) {
                return regex.full_match(name);
              }) == recorded(*row.find("whole")));
    CHECK(verdicts(
              names, [&] { return NamePattern(pattern, std::make_shared<RegexSteps>()); },
              [](const NamePattern& key, const std::string& name) { return key.matches(name); }) ==
          recorded(*row.find("suffix")));
  }
}

TEST_CASE("constructs that would mean something else are refused by name") {
  struct Refusal {
    const char* pattern;
    const char* part;
  };
  const Refusal refusals[] = {{R"(\h)", "unknown escape \\h"},
                              {R"(\Qa\E)", "unknown escape \\Q"},
                              {R"([\Z])", "unknown escape"},
                              {R"(\8)", "reference to a group"},
                              {R"(\x4)", "incomplete escape"},
                              {"(?x)a b", "unsupported group"},
                              {"(?a:b)", "unsupported group"},
                              {"a(?i)b", "not at the start"},
                              {"(*ACCEPT)a", "anything to repeat"},
                              {"a**", "second quantifier"},
                              {"(a", "unclosed group"},
                              {"a)", "unbalanced"},
                              {"[a", "unclosed character class"},
                              {"(?P<n>a)(?P<n>b)", "second group named n"},
                              {"(?P=n)", "unknown group n"},
                              {"a\\", "backslash at the end"}};
  for (const Refusal& refusal : refusals) {
    INFO(refusal.pattern);
    testing::require_error(ErrorKind::usage, refusal.part,
                           [&] { PythonRegex regex(refusal.pattern); });
  }
}

TEST_CASE("an expression that explodes is stopped") {
  const PythonRegex regex("(a+)+[bc]");
  testing::require_error(ErrorKind::usage, "cannot match the regular expression",
                         [&] { regex.full_match(std::string(4000, 'a')); });
  // A short path is enough, and many of them must not take minutes.
  testing::require_error(ErrorKind::usage, "match limit exceeded",
                         [&] { PythonRegex("(a+)+$").match(std::string(40, 'a') + "b"); });
  CHECK(PythonRegex(R"((.*\.)?(.*\.)?(.*\.)?(q|k|v)_proj)")
            .full_match("base.model.model.decoder.layers.103.self_attn.attention.inner.q_proj"));
}

TEST_CASE(
    "a match has a limit of steps, of memory and of the name's length, each of which is named") {
  const auto refuses = [](std::string_view limit, const std::string& pattern,
                          const std::string& name) {
    const PythonRegex regex(pattern);
    testing::require_error(ErrorKind::usage, limit, [&] { regex.full_match(name); });
    testing::require_error(ErrorKind::usage, limit, [&] { regex.match(name); });
    testing::require_error(ErrorKind::usage, limit, [&] { regex.match_group(name, "idx"); });
  };
  // More than twice as many steps for each letter.
  refuses("match limit exceeded", "(a|aa|a)*b", std::string(17, 'a') + "-b");
  CHECK_FALSE(PythonRegex("(a|aa|a)*b").full_match(std::string(8, 'a') + "-b"));

  // Every step keeps the places of all groups.
  std::string groups;
  for (int i = 0; i < 2000; ++i) groups += "(x)?";
  refuses("heap limit exceeded", groups + "(?:a|b)*c", std::string(1000, 'a') + "-c");
  CHECK_FALSE(PythonRegex("(x)?(?:a|b)*c").full_match(std::string(1000, 'a') + "-c"));

  refuses("a name of 4097 bytes, expected at most 4096", "a*", std::string(4097, 'a'));
  CHECK(PythonRegex("a*").full_match(std::string(4096, 'a')));
}

TEST_CASE("the expressions of a configuration share their steps") {
  const auto steps = std::make_shared<RegexSteps>(1000);
  const PythonRegex first(".*q", steps);
  const PythonRegex second(".*k$", steps);
  for (int i = 0; i < 10; ++i) {
    CHECK(first.match("layers.0.q"));
    CHECK_FALSE(second.match("layers.0.k.q"));
  }
  const auto all = [&] {
    for (int i = 0; i < 1000; ++i) first.match("layers.0.q");
  };
  testing::require_error(ErrorKind::usage, "steps for all names together", all);
  testing::require_error(ErrorKind::usage, ".*k$", [&] { second.match("layers.0.k.q"); });
}

TEST_CASE("names that are not UTF-8 match nothing") {
  CHECK_FALSE(PythonRegex(".*q").full_match("\xff\xfeq"));
}

TEST_CASE("a named group comes back, or is absent where it took no part") {
  const PythonRegex regex(R"(.*?\.(?P<idx>\d+)\.|x)");
  CHECK(**regex.match_group("m.layers.12.q", "idx") == "12");
  REQUIRE(regex.match_group("x", "idx").has_value());
  CHECK_FALSE(regex.match_group("x", "idx")->has_value());
  CHECK_FALSE(regex.match_group("y", "idx").has_value());
}

}  // namespace
}  // namespace lora
