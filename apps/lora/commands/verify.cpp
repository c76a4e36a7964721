#include "lora/ops/verify.h"

#include <algorithm>
#include <map>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/verify_report.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Verify final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.rest("ADAPTER", adapters_, "adapter or run directories").is_required = false;
    options.text("--base", base_, "BASE", kBaseHelp);
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    options.group("Checks");
    options.flag("--outputs", outputs_, "compare outputs with those recorded beside the adapter");
    options.optional_text("--probe", outputs_, probe_, "FILE",
                          "the same as --outputs; with a value, compare with this record instead");
    options
        .integer("--null", null_samples_, 1,
                 "compare the effect on outputs with that of N random adapters of equal norms "
                 "(implies --outputs)")
        .metavar = "N";
    options.flag("--strict", strict_, "warnings are errors");
    options.flag("--require-proof", require_proof_, "an unproven base is an error");
    options.group("Report");
    options.choice("--format", format_, {"text", "json"}, "form of the report");
    options.flag("--modules", modules_, "list the figures of every module");
    options.text("--explain", explain_, "RULE",
                 "say what a rule means, and stop (\"all\": every rule)");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    if (explain_) return explain(context.console);
    if (adapters_.empty())
      throw Error(ErrorKind::usage, "missing ADAPTER")
          .with_hint("--help shows what this verb takes");
    std::optional<Checkpoint> base;
    if (base_) base = open_base(*base_, base_options_, context);
    ProgressLine progress(context.streams, "verify", "B",
                          !context.global.no_progress && !context.global.quiet);
    Outcome outcome;
    JsonArray reports;
    bool any_unreadable = false, any_error = false, any_inconclusive = false;
    for (const std::string& adapter : adapters_) {
      VerifyOptions options;
      options.config = adapter_config_from(adapter_config_);
      options.adapter = adapter_path(adapter, context);
      options.base = base ? &*base : nullptr;
      options.check_outputs = outputs_ || null_samples_ > 0;
      options.null_samples = static_cast<int>(null_samples_);
      if (probe_) options.probe = *probe_;
      options.engine = [&context]() -> Engine& { return context.engine(); };
      options.require_proof = require_proof_;
      options.strict = strict_;
      options.threads = context.threads();
      options.sinks = context.sinks;
      options.sinks.progress = &progress;
      const VerifyReport report = verify(options);
      progress.clear();
      print_verify_report(report, modules_, context.console);
      reports.push_back(verify_report_json(report));
      outcome.findings.insert(outcome.findings.end(), report.findings.begin(),
                              report.findings.end());
      any_unreadable = any_unreadable || !report.is_readable;
      any_error = any_error || report.has_error();
      any_inconclusive = any_inconclusive || report.is_inconclusive();
    }
    outcome.exit_code = any_unreadable     ? kBadInput
                        : any_error        ? kAnswerIsNo
                        : any_inconclusive ? kInconclusive
                                           : kDone;
    outcome.result = JsonObject{{"adapters", std::move(reports)}};
    return outcome;
  }

 private:
  // A run directory without any adapter yet is a finding of this path, not the end of the run.
  static std::filesystem::path adapter_path(const std::string& path, Context& context) {
    try {
      return resolve_adapter(path, context);
    } catch (const Error& error) {
      context.sinks.debug(error.message());
      return path;
    }
  }

  Outcome explain(Console& console) const {
    JsonArray rules;
    for (const RuleInfo& rule : verify_rules()) {
      if (*explain_ != "all" && *explain_ != rule.id && *explain_ != rule.name) continue;
      rules.push_back(JsonObject{{"rule", rule.id},
                                 {"name", rule.name},
                                 {"severity", to_string(rule.severity)},
                                 {"looks_at", rule.looks_at},
                                 {"says", rule.says},
                                 {"fix", rule.fix}});
      console.line(std::string(rule.id) + " " + std::string(rule.name) + " (" +
                   std::string(to_string(rule.severity)) + ")");
      console.line("  looks at  " + std::string(rule.looks_at));
      console.line("  means     " + std::string(rule.says));
      console.line("  fix       " + std::string(rule.fix));
    }
    if (rules.empty())
      throw Error(ErrorKind::usage, "no rule is called \"" + *explain_ + "\"")
          .with_hint("lora verify --explain all lists them");
    return {kDone, JsonObject{{"rules", std::move(rules)}}, {}};
  }

  std::vector<std::string> adapters_;
  std::optional<std::string> base_, adapter_config_, probe_, explain_;
  std::int64_t null_samples_ = 0;
  std::string format_ = "text";
  OpenCheckpointOptions base_options_;
  bool outputs_ = false, strict_ = false, require_proof_ = false, modules_ = false;
};

}  // namespace

Verb verify_verb() {
  return {
      "verify",
      "Core",
      "prove that an adapter is what it claims to be",
      "Checks integrity of the files, architecture (configuration, keys and shapes, against the "
      "base "
      "if given), parameters (finite, with effect, equal to what was recorded when it was saved), "
      "identity of the base (--base), and outputs (--outputs: same input, same answer).\n\nThe "
      "verdict is proven, plausible, contradicted or unreadable. Exit code 0 when nothing is "
      "wrong, "
      "1 on an error finding, 3 when a path is no adapter or damaged, 7 when a check asked for "
      "could "
      "not be made.",
      "lora verify adapter\n"
      "lora verify adapter --base base --outputs --require-proof\n"
      "lora verify adapters/* --json\n"
      "lora verify --explain LV501",
      []() -> std::unique_ptr<Command> { return std::make_unique<Verify>(); }};
}

}  // namespace lora::cli
