#include "commands/verify_explain.h"

#include <algorithm>
#include <set>

#include "cli/exit_codes.h"
#include "cli/suggest.h"
#include "lora/base/error.h"
#include "lora/ops/verify.h"

namespace lora::cli {
namespace {

Error unknown_rule(const std::string& selector, const std::string& flag) {
  std::vector<std::string> known;
  for (const RuleInfo& rule : verify_rules()) {
    known.emplace_back(rule.id);
    known.emplace_back(rule.name);
  }
  Error error(ErrorKind::usage, "cannot use \"" + selector + "\" for " + flag +
                                    ", expected a rule's id (LV305), the beginning of ids (LV3) "
                                    "or a rule's name (key-missing)");
  const auto close = closest(selector, known);
  error.with_hint(close ? "did you mean " + *close + "?"
                        : "lora verify --explain all lists the rules");
  return error;
}

Tone tone_of(Severity severity) {
  return severity == Severity::error     ? Tone::red
         : severity == Severity::warning ? Tone::yellow
                                         : Tone::dim;
}

}  // namespace

void require_rules(const std::vector<std::string>& selectors, const std::string& flag) {
  for (const std::string& selector : selectors)
    if (rules_of_selector(selector).empty()) throw unknown_rule(selector, flag);
}

Outcome explain_rules(const std::vector<std::string>& selectors, Console& console) {
  const bool is_all = std::find(selectors.begin(), selectors.end(), "all") != selectors.end();
  std::set<std::string, std::less<>> chosen;
  if (!is_all) {
    require_rules(selectors, "--explain");
    for (const std::string& selector : selectors)
      for (std::string& id : rules_of_selector(selector)) chosen.insert(std::move(id));
  }
  JsonArray rules;
  for (const RuleInfo& rule : verify_rules()) {
    if (!is_all && !chosen.contains(rule.id)) continue;
    rules.push_back(JsonObject{{"rule", rule.id},
                               {"name", rule.name},
                               {"severity", to_string(rule.severity)},
                               {"check", check_of_rule(rule.id)},
                               {"looks_at", rule.looks_at},
                               {"says", rule.says},
                               {"fix", rule.fix}});
    console.line(console.toned(Tone::bold, std::string(rule.id) + " " + std::string(rule.name)) +
                 " (" + console.toned(tone_of(rule.severity), to_string(rule.severity)) +
                 ", check " + std::string(check_of_rule(rule.id)) + ")");
    console.line("  looks at  " + std::string(rule.looks_at));
    console.line("  means     " + std::string(rule.says));
    console.line("  fix       " + std::string(rule.fix));
  }
  return {kDone, JsonObject{{"rules", std::move(rules)}}, {}};
}

}  // namespace lora::cli
