#include "commands/verify_report.h"

#include <algorithm>
#include <map>

#include "cli/units.h"
#include "commands/merged_report.h"
#include "commands/output_report.h"

namespace lora::cli {
namespace {

constexpr std::size_t kShownPerRule = 3;

Tone tone_of(Severity severity) {
  switch (severity) {
    case Severity::error:
      return Tone::red;
    case Severity::warning:
      return Tone::yellow;
    case Severity::note:
      return Tone::dim;
  }
  return Tone::plain;
}

std::string mark_of(const CheckResult& check, const Console& console) {
  switch (check.status) {
    case CheckStatus::passed:
      return console.toned(Tone::green, "ok     ");
    case CheckStatus::failed:
      return console.toned(Tone::red, "FAILED ");
    case CheckStatus::waived:
      return console.toned(Tone::yellow, "waived ");
    case CheckStatus::not_made:
      return console.toned(Tone::yellow, "unknown");
    case CheckStatus::not_asked:
      return console.toned(Tone::dim, "-      ");
  }
  return "";
}

Tone tone_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::proven:
      return Tone::green;
    case Verdict::plausible:
      return Tone::cyan;
    case Verdict::contradicted:
    case Verdict::unreadable:
      return Tone::red;
  }
  return Tone::plain;
}

// What the filter took away is counted aloud.
std::string hidden_text(const VerifyReport& report) {
  std::string text;
  if (!report.left_out.empty())
    text = plural(count_of(report.left_out), "finding") + " left out (--select, --ignore)";
  if (!report.accepted.empty())
    text += (text.empty() ? "" : ", ") + plural(count_of(report.accepted), "finding") +
            " accepted by the baseline";
  return text;
}

void print_findings(const VerifyReport& report, Console& console) {
  for (const Severity severity : {Severity::error, Severity::warning, Severity::note}) {
    std::map<std::string, std::vector<const Finding*>> by_rule;
    std::map<std::string, std::uint64_t> counted;  // and not kept
    for (const Finding& finding : report.findings)
      if (finding.severity == severity) {
        counted[finding.rule] += finding.more;
        std::vector<const Finding*>& kept = by_rule[finding.rule];
        if (finding.more == 0 || kept.empty()) kept.push_back(&finding);
      }
    for (const auto& [rule, findings] : by_rule) {
      if (severity == Severity::note && console.is_quiet()) continue;
      const std::size_t shown = std::min(findings.size(), kShownPerRule);
      for (std::size_t i = 0; i < shown; ++i) {
        const Finding& finding = *findings[i];
        const bool names_module =
            finding.module.empty() || finding.message.find(finding.module) != std::string::npos;
        const std::string about =
            !finding.tensor.empty() && finding.message.find(finding.tensor) == std::string::npos
                ? finding.tensor + ": "
            : !names_module ? finding.module + ": "
                            : "";
        console.line(
            console.toned(tone_of(severity), std::string(to_string(severity)) + " " + rule) + " " +
            printable(about + finding.message));
      }
      // A baseline can have taken all but the entry that counts.
      const bool is_count_alone = findings.front()->more != 0;
      const std::uint64_t others = findings.size() - shown + (is_count_alone ? 0 : counted[rule]);
      if (others != 0) console.line("  and " + std::to_string(others) + " more of " + rule);
      if (!findings.front()->hint.empty())
        console.line("  " + console.toned(Tone::cyan, "hint:") + " " +
                     printable(findings.front()->hint));
    }
  }
}

void print_figures(const VerifyReport& report, bool all_modules, Console& console) {
  const bool with_base =
      std::any_of(report.modules.begin(), report.modules.end(),
                  [](const ModuleFigures& row) { return row.base_mean.has_value(); });
  std::vector<std::string> header{"  module", "rank",  "scaling", "A mean",  "A std",
                                  "B mean",   "B std", "|dW|",    "dW mean", "dW std"};
  if (with_base) header.insert(header.end(), {"W mean", "|dW|/|W|"});
  std::vector<bool> right(header.size(), true);
  right.front() = false;
  Table table(header, right);
  constexpr std::size_t kFew = 6;
  const std::size_t shown =
      all_modules || report.modules.size() <= kFew ? report.modules.size() : kFew;
  for (std::size_t i = 0; i < shown; ++i) {
    const ModuleFigures& row = report.modules[i];
    std::vector<std::string> cells{
        "  " + printable(row.module_path), std::to_string(row.rank),
        number_text(row.scaling),          number_text(row.a.mean, 3),
        number_text(row.a.std, 3),         number_text(row.b.mean, 3),
        number_text(row.b.std, 3),         number_text(row.update.norm),
        number_text(row.update.mean, 3),   number_text(row.update.std, 3)};
    if (with_base) {
      cells.push_back(row.base_mean ? number_text(*row.base_mean, 3) : "");
      cells.push_back(row.relative_update ? number_text(*row.relative_update, 3) : "");
    }
    table.row(std::move(cells));
  }
  for (const std::string& line : table.lines()) console.line(line);
  if (shown < report.modules.size())
    console.line("  and " + std::to_string(report.modules.size() - shown) +
                 " more modules (--modules)");
}

JsonObject statistics_json(const TensorStatistics& statistics) {
  return {{"mean", statistics.mean},
          {"std", statistics.std},
          {"norm", statistics.norm},
          {"min", statistics.min},
          {"max", statistics.max},
          {"nan", statistics.nan_count},
          {"inf", statistics.inf_count},
          {"denormals", statistics.denormal_count},
          {"rows", statistics.rows},
          {"zero_rows", statistics.zero_rows},
          {"zero_tail_rows", statistics.zero_tail_rows}};
}

JsonObject update_json(const UpdateStatistics& update) {
  JsonArray sigma, dead, duplicates;
  for (const double value : update.singular_values) sigma.emplace_back(value);
  for (const std::int64_t row : update.dead_rank_rows) dead.emplace_back(row);
  for (const auto& [i, j] : update.duplicate_rank_rows)
    duplicates.emplace_back(JsonArray{Json(i), Json(j)});
  return {{"mean", update.mean},
          {"std", update.std},
          {"norm", update.norm},
          {"effective_rank", update.effective_rank},
          {"stable_rank", update.stable_rank},
          {"concentration", update.concentration},
          {"singular_values", std::move(sigma)},
          {"dead_rank_rows", std::move(dead)},
          {"duplicate_rank_rows", std::move(duplicates)},
          {"direction_only", update.is_direction}};
}

Json module_json(const ModuleFigures& row) {
  return JsonObject{{"module", printable(row.module_path)},
                    {"rank", row.rank},
                    {"alpha", row.alpha},
                    {"scaling", row.scaling},
                    {"a", statistics_json(row.a)},
                    {"b", statistics_json(row.b)},
                    {"update", update_json(row.update)},
                    {"base_mean", row.base_mean ? Json(*row.base_mean) : Json()},
                    {"base_norm", row.base_norm ? Json(*row.base_norm) : Json()},
                    {"relative_update", row.relative_update ? Json(*row.relative_update) : Json()}};
}

JsonObject outputs_json(const OutputComparison& outputs) {
  Json merged, null;
  if (outputs.merged) merged = difference_json(*outputs.merged);
  if (outputs.null)
    null = JsonObject{{"samples", outputs.null->samples},
                      {"effect", outputs.null->effect},
                      {"mean", outputs.null->mean},
                      {"std", outputs.null->std},
                      {"largest", outputs.null->largest}};
  return {{"compute", outputs.compute},
          {"cause", to_string(outputs.cause)},
          {"tolerance", outputs.tolerance},
          {"base", difference_json(outputs.base)},
          {"adapted", difference_json(outputs.adapted)},
          {"effect", difference_json(outputs.effect)},
          {"merged", std::move(merged)},
          {"null", std::move(null)}};
}

std::vector<BaseGroup> bases_of(const std::vector<VerifiedAdapter>& adapters) {
  std::vector<StatedBase> bases;
  for (const VerifiedAdapter& adapter : adapters) bases.push_back(adapter.base);
  return group_by_base(bases);
}

// Adapters of different bases are for no model together; in a run over many that is usual.
void print_bases(const std::vector<VerifiedAdapter>& adapters, Console& console) {
  constexpr std::size_t kShown = 3;
  const std::vector<BaseGroup> groups = bases_of(adapters);
  if (groups.size() < 2) return;
  console.line("they are for " + std::to_string(groups.size()) +
               " different bases and cannot all be loaded together:");
  for (const BaseGroup& group : groups) {
    std::string members;
    for (std::size_t i = 0; i < group.members.size() && i < kShown; ++i)
      members += (i > 0 ? ", " : "") + printable(adapters[group.members[i]].report.path.string());
    if (group.members.size() > kShown)
      members += " and " + std::to_string(group.members.size() - kShown) + " more";
    constexpr std::size_t kRootDigits = 12;
    const std::string root =
        group.base.root ? "root " + group.base.root->hex().substr(0, kRootDigits) : std::string();
    std::string base = printable(group.base.name.value_or(""));
    if (!root.empty()) base += base.empty() ? root : " (" + root + ")";
    console.line("  " + base + ": " + members);
  }
}

Json bases_json(const std::vector<VerifiedAdapter>& adapters) {
  JsonArray bases;
  for (const BaseGroup& group : bases_of(adapters)) {
    JsonArray members;
    for (const std::size_t i : group.members)
      members.emplace_back(adapters[i].report.path.string());
    bases.push_back(
        JsonObject{{"name", group.base.name ? Json(printable(*group.base.name)) : Json()},
                   {"root", group.base.root ? Json(group.base.root->hex()) : Json()},
                   {"adapters", std::move(members)}});
  }
  return bases;
}

}  // namespace

void print_verify_report(const VerifyReport& report, const ReportStyle& style, Console& console) {
  console.line(console.toned(Tone::bold, printable(report.path.string())));
  if (report.adapter) {
    const AdapterConfig& config = report.adapter->config;
    console.line("  r " + (config.rank > 0 ? std::to_string(config.rank) : "unusable") +
                 ", alpha " + number_text(config.alpha) + (config.use_rslora ? ", rsLoRA" : "") +
                 (config.use_dora ? ", DoRA" : "") + ", base " +
                 printable(config.base_model_name_or_path.value_or("(not named)")));
  }
  for (const CheckResult& check : report.checks) {
    std::string name = check.name;
    name.resize(13, ' ');
    console.line("  " + mark_of(check, console) + " " + name + printable(check.detail));
  }
  if (!report.modules.empty() && (style.all_modules || !style.is_one_of_many))
    print_figures(report, style.all_modules, console);
  if (report.merged) print_merged_report(*report.merged, style.all_modules, console);
  print_findings(report, console);
  if (const std::string hidden = hidden_text(report); !hidden.empty())
    console.line(console.toned(Tone::dim, hidden));
  console.line("verdict: " + console.toned(tone_of(report.verdict), to_string(report.verdict)) +
               " (" + printable(report.verdict_reason) + ")");
  if (style.is_one_of_many) console.line();
}

void print_verify_summary(const std::vector<VerifiedAdapter>& adapters, Console& console) {
  Table table({"adapter", "verdict", "errors", "warnings", "notes"},
              {false, false, true, true, true});
  std::map<Verdict, std::size_t> verdicts;
  for (const VerifiedAdapter& adapter : adapters) {
    const VerifyReport& report = adapter.report;
    ++verdicts[report.verdict];
    std::vector<std::string> cells{printable(report.path.string()),
                                   std::string(to_string(report.verdict))};
    for (const Severity severity : {Severity::error, Severity::warning, Severity::note})
      cells.push_back(count_text(count_of(report.findings, severity)));
    table.row(std::move(cells));
  }
  for (const std::string& line : table.lines()) console.line(line);
  std::string counts;
  for (const auto& [verdict, count] : verdicts)
    counts +=
        (counts.empty() ? "" : ", ") +
        console.toned(tone_of(verdict), count_text(count) + " " + std::string(to_string(verdict)));
  console.line(plural(adapters.size(), "adapter") + ": " + counts);
  print_bases(adapters, console);
}

Json verify_summary_json(const std::vector<VerifiedAdapter>& adapters) {
  JsonObject summary;
  for (const Verdict verdict :
       {Verdict::proven, Verdict::plausible, Verdict::contradicted, Verdict::unreadable})
    summary[to_string(verdict)] = static_cast<std::uint64_t>(std::count_if(
        adapters.begin(), adapters.end(),
        [&](const VerifiedAdapter& adapter) { return adapter.report.verdict == verdict; }));
  const auto add = [&](const char* name, auto&& count) {
    std::uint64_t total = 0;
    for (const VerifiedAdapter& adapter : adapters) total += count(adapter.report);
    summary[name] = total;
  };
  for (const auto& [name, severity] :
       {std::pair{"errors", Severity::error}, std::pair{"warnings", Severity::warning},
        std::pair{"notes", Severity::note}})
    add(name, [severity = severity](const VerifyReport& report) {
      return count_of(report.findings, severity);
    });
  add("left_out", [](const VerifyReport& report) { return count_of(report.left_out); });
  add("accepted", [](const VerifyReport& report) { return count_of(report.accepted); });
  summary["bases"] = bases_json(adapters);
  return summary;
}

Json verify_report_json(const VerifyReport& report) {
  JsonArray checks, modules;
  for (const CheckResult& check : report.checks)
    checks.push_back(JsonObject{{"name", check.name},
                                {"status", to_string(check.status)},
                                {"detail", printable(check.detail)}});
  for (const ModuleFigures& row : report.modules) modules.push_back(module_json(row));
  Json outputs;
  if (report.outputs) outputs = outputs_json(*report.outputs);
  return JsonObject{{"path", report.path.string()},
                    {"verdict", to_string(report.verdict)},
                    {"verdict_reason", printable(report.verdict_reason)},
                    {"left_out", count_of(report.left_out)},
                    {"accepted", count_of(report.accepted)},
                    {"checks", std::move(checks)},
                    {"modules", std::move(modules)},
                    {"outputs", std::move(outputs)},
                    {"merged", report.merged ? merged_report_json(*report.merged) : Json()}};
}

}  // namespace lora::cli
