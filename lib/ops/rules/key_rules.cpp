#include <algorithm>

#include "lora/adapter/keys.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"
#include "ops/selection.h"
#include "ops/sibling_gaps.h"

namespace lora::rules {
namespace {

using Kind = KeyProblem::Kind;
using Names = std::vector<std::string>;

// Names behind a description, layers grouped: "q_proj (not targeted), x (not in the base)".
std::string with_reasons(const std::vector<std::pair<std::string, std::string>>& named,
                         Report& report) {
  Names order, texts;
  for (const auto& [name, reason] : named)
    if (std::find(order.begin(), order.end(), reason) == order.end()) order.push_back(reason);
  for (const std::string& reason : order) {
    Names names;
    for (const auto& [name, other] : named)
      if (other == reason) names.push_back(name);
    for (const std::string& name : group_layers(names))
      texts.push_back(name + (reason.empty() ? "" : " (" + reason + ")"));
  }
  return report.list(texts);
}

// A key that carries LoRA's mark and is none of its tensors.
bool has_unknown_suffix(const std::string& key) { return key.find("lora_") != std::string::npos; }

bool is_base_parameter(const Subject& subject, const KeyProblem& problem) {
  if (parse_key(problem.key).is_lora()) return false;
  if (subject.base != nullptr)
    return subject.base->find(to_base_name(parse_key(problem.key))) != nullptr;
  return !has_unknown_suffix(problem.key);
}

// Names alone, without a base. Names that begin with a prefix of something else have their own
// rule.
void add_unselected(const Adapter& adapter,
                    std::vector<std::pair<std::string, std::string>>& unknown) {
  const Selection selection(adapter.config);
  for (const LoraModule& module : adapter.modules) {
    if (!prefix_before(module.module_path).empty()) continue;
    std::string refusal = selection.refusal(module);
    if (!refusal.empty())
      unknown.emplace_back(module.module_path, "not targeted: " + std::move(refusal));
  }
}

void unexpected(const Subject& subject, Report& report) {
  std::vector<std::pair<std::string, std::string>> unknown;
  std::string first_tensor;
  if (subject.accounting)
    for (const UnexpectedSite& site : subject.accounting->unexpected) {
      UnexpectedSite shown = site;
      // Every layer has a nearest module of its own; one reason keeps them in one line.
      if (!shown.nearest.empty()) shown.nearest = group_layers({shown.nearest}).front();
      unknown.emplace_back(site.name, describe(shown));
    }
  if (!subject.accounting) add_unselected(subject.adapter, unknown);
  for (const KeyProblem& problem : subject.adapter.problems) {
    if (problem.kind != Kind::unknown || is_base_parameter(subject, problem)) continue;
    if (first_tensor.empty()) first_tensor = problem.key;
    unknown.emplace_back(problem.key, parse_key(problem.key).is_lora()  ? problem.message
                                      : has_unknown_suffix(problem.key) ? "unknown suffix"
                                                                        : "not in the base");
  }
  if (unknown.empty()) return;
  report.add("the file has tensors for " + std::to_string(unknown.size()) +
                 (unknown.size() == 1 ? " site" : " sites") +
                 (subject.accounting ? " that configuration and base do not explain"
                                     : " that the configuration does not explain") +
                 ", which PEFT drops: " + with_reasons(unknown, report),
             {.tensor = first_tensor, .module = unknown.front().first, .hint = {}, .severity = {}});
}

// Without a base: what all the other layers have.
void missing_siblings(const Subject& subject, Report& report) {
  const Names gaps = sibling_gaps(subject.adapter);
  if (gaps.empty()) return;
  report.add(counted(gaps.size(), "module") + (gaps.size() == 1 ? " has" : " have") +
                 " no tensors, which the configuration selects and whose siblings in the other "
                 "layers have: " +
                 report.list(group_layers(gaps)) +
                 "; PEFT leaves them without an update; with --base it is certain whether they "
                 "exist",
             {.tensor = {}, .module = gaps.front(), .hint = {}, .severity = Severity::warning});
}

void missing(const Subject& subject, Report& report) {
  if (!subject.accounting) return missing_siblings(subject, report);
  if (subject.accounting->missing.empty()) return;
  const std::vector<MissingPart>& parts = subject.accounting->missing;
  std::vector<std::pair<std::string, std::string>> absent;
  std::size_t modules = 0;
  for (const MissingPart& part : parts) {
    modules += part.kind == MissingPart::Kind::factors ? 1 : 0;
    std::string reason = describe(part.kind);
    if (!reason.empty()) reason = reason.substr(2, reason.size() - 3);
    absent.emplace_back(part.name, std::move(reason));
  }
  const std::string expected = std::to_string(subject.accounting->expected_sites);
  report.add(std::to_string(parts.size()) +
                 (modules == parts.size()
                      ? " of " + expected + " expected modules have no tensors: "
                      : " expected parts (of " + expected + " sites) have no tensors: ") +
                 with_reasons(absent, report),
             {.tensor = {}, .module = parts.front().name, .hint = {}, .severity = {}});
}

// All problems of these kinds in one finding.
void add_problems(const Subject& subject, Report& report, std::initializer_list<Kind> kinds,
                  std::string_view noun, bool (*accepts)(const Subject&, const KeyProblem&),
                  std::string hint = {}) {
  std::vector<const KeyProblem*> found;
  Names texts;
  for (const KeyProblem& problem : subject.adapter.problems) {
    if (std::find(kinds.begin(), kinds.end(), problem.kind) == kinds.end() ||
        !accepts(subject, problem))
      continue;
    found.push_back(&problem);
    texts.push_back(problem.key + " " + problem.message);
  }
  if (found.empty()) return;
  constexpr std::size_t kShown = 3;
  report.add(
      (found.size() == 1 ? "" : counted(found.size(), noun) + ": ") + report.list(texts, kShown),
      {.tensor = found.front()->key,
       .module = parse_key(found.front()->key).module_path,
       .hint = std::move(hint),
       .severity = {}});
}

void unpaired(const Subject& subject, Report& report) {
  add_problems(subject, report, {Kind::unpaired, Kind::bad_shape}, "unpaired or misshaped tensor",
               [](const Subject& all, const KeyProblem& problem) {
                 // Tensors without elements have a rule of their own.
                 const auto found = all.adapter.tensors.find(to_peft_key(parse_key(problem.key)));
                 return found == all.adapter.tensors.end() || found->second.numel() != 0;
               });
}

void duplicate(const Subject& subject, Report& report) {
  const auto all = [](const Subject&, const KeyProblem&) { return true; };
  add_problems(subject, report, {Kind::duplicate}, "second name", all);
  add_problems(subject, report, {Kind::copy}, "second name", all,
               "write each tensor once: lora repair ADAPTER -o DIR");
}

void overwrites_base(const Subject& subject, Report& report) {
  add_problems(subject, report, {Kind::unknown}, "undeclared base parameter", is_base_parameter);
}

// Other numbers of tokens are for vocab-mismatch.
void base_shape(const Subject& subject, Report& report) {
  if (!subject.accounting) return;
  std::vector<MisshapedSite> sites = subject.accounting->misshaped;
  std::erase_if(sites, [](const MisshapedSite& site) { return site.is_vocabulary; });
  if (sites.empty()) return;
  std::vector<std::pair<std::string, std::string>> table;
  for (const MisshapedSite& site : sites)
    table.emplace_back(site.name, site.found + ", base " + site.expected +
                                      (site.cause.empty() ? "" : ": " + site.cause));
  report.add(counted(sites.size(), "shape") + (sites.size() == 1 ? " does" : " do") +
                 " not fit the base: " + with_reasons(table, report),
             {.tensor = {}, .module = sites.front().name, .hint = {}, .severity = {}});
}

}  // namespace

const std::vector<Rule>& key_rules() {
  static const std::vector<Rule> rules{
      {{"LV301", "key-unexpected", Severity::error,
        "every tensor of the file against configuration and base",
        "The file adapts modules that the configuration does not target or the base does not have, "
        "or has tensors of unknown names; PEFT drops such tensors without a word.",
        "give the base this adapter was trained on, correct target_modules, or map renamed "
        "modules: lora repair ADAPTER --base BASE -o DIR"},
       unexpected},
      {{"LV302", "key-missing", Severity::error,
        "every module, saved parameter, bias and token row that the configuration asks for",
        "Something the configuration asks for has no tensors; PEFT leaves LoRA layers without any "
        "update and fails on saved modules (a warning without a base, where only the other layers "
        "tell).",
        "save again from the live model or a complete checkpoint: lora save CHECKPOINT -o DIR; "
        "narrow target_modules if this set was intended"},
       missing},
      {{"LV303", "key-unpaired", Severity::error, "the pairing and shapes of A and B",
        "A factor is alone, or the two factors of a module do not fit together.",
        "restore the file from the checkpoint it was saved from"},
       unpaired},
      {{"LV304", "key-duplicate", Severity::error,
        "names in the header and names after removing prefixes",
        "Two tensors of the file mean the same parameter.",
        "remove the stale tensor of each two, or save again from the checkpoint: lora save "
        "CHECKPOINT -o DIR"},
       duplicate},
      {{"LV308", "key-overwrites-base", Severity::error,
        "tensors that are no LoRA factors against modules_to_save and bias",
        "The file would replace weights of the base that nobody declared.",
        "remove the tensor or declare its module in modules_to_save; until then treat it as "
        "hostile"},
       overwrites_base},
      {{"LV309", "base-shape-mismatch", Severity::error, "shapes of factors against the base",
        "The adapter was made for a base of other dimensions.",
        "give the base this adapter was trained on"},
       base_shape},
  };
  return rules;
}

}  // namespace lora::rules
