#include "lora/ops/verify.h"

#include <algorithm>
#include <map>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/adapter_paths.h"
#include "commands/commands.h"
#include "commands/report_formats.h"
#include "commands/verify_baseline.h"
#include "commands/verify_explain.h"
#include "commands/verify_report.h"
#include "lora/base/atomic_write.h"
#include "lora/base/error.h"
#include "lora/ops/adapter_index.h"

namespace lora::cli {
namespace {

class Verify final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options
        .rest("ADAPTER", adapters_,
              "adapter or run directories; a quoted pattern (\"adapters/*\") means its folders")
        .is_required = false;
    options.text("--base", base_, "BASE", kBaseHelp);
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    options.group("Checks");
    options.flag("--full", full_,
                 "hash every tensor of the base, also where base.lock.json "
                 "vouches for it");
    options.flag("--outputs", outputs_, "compare outputs with those recorded beside the adapter");
    options.optional_text("--probe", outputs_, probe_, "FILE",
                          "the same as --outputs; with a value, compare with this record instead");
    options
        .integer("--null", null_samples_, 1,
                 "compare the effect on outputs with that of N random adapters of equal norms "
                 "(implies --outputs)")
        .metavar = "N";
    options.text("--merged", merged_, "BASE",
                 "prove that this checkpoint is base + adapter, or base + all adapters where "
                 "weights are given (ADAPTER@WEIGHT) or its lora_merge.json names several");
    options.group("Findings");
    options.flag("--strict", strict_, "warnings are errors");
    options.flag("--require-proof", require_proof_, "an unproven base is an error");
    options.list("--select", filter_.select, "RULE,...",
                 "only these rules count: ids (LV305), beginnings of ids (LV3), names");
    options.list("--ignore", filter_.ignore, "RULE,...", "these rules do not count");
    options.text("--baseline", baseline_, "FILE", "accept the findings listed in FILE");
    options.text("--write-baseline", write_baseline_, "FILE",
                 "list the errors and warnings of this run in FILE, to be accepted from then on");
    options.flag("-f,--force", force_, "replace an existing file of --write-baseline");
    options.group("Report");
    options.choice("--format", format_, {"text", "json", "junit", "sarif", "github"},
                   "form of the report");
    options.flag("--modules", modules_, "list the figures of every module");
    options.list("--explain", explain_, "RULE,...",
                 "say what rules look at, mean, and how to fix what they find, and stop "
                 "(\"all\": every rule)");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    if (!explain_.empty()) return explain_rules(explain_, context.console);
    if (context.console.is_json() && is_document())
      throw Error(ErrorKind::usage, "--json and --format " + format_ + " exclude each other");
    try {
      return check(context);
    } catch (const Error& error) {
      // Whoever reads the document shall find the failure in it.
      const int code = exit_code_of(error.kind());
      if (format_ == "junit") context.console.raw(junit_failure(error));
      if (format_ == "sarif") context.console.raw(sarif_failure(error, code));
      if (format_ == "github") context.console.raw(github_failure(error));
      throw;
    }
  }

 private:
  bool is_document() const {
    return format_ == "junit" || format_ == "sarif" || format_ == "github";
  }

  Outcome check(Context& context) {
    if (adapters_.empty())
      throw Error(ErrorKind::usage, "missing ADAPTER")
          .with_hint("--help shows what this verb takes");
    require_rules(filter_.select, "--select");
    require_rules(filter_.ignore, "--ignore");
    if (write_baseline_) require_absent(*write_baseline_, force_);
    BaselineRun baseline(baseline_);
    filter_.baseline = baseline.baseline();
    std::optional<Checkpoint> base;
    if (base_) base = open_base(*base_, base_options_, context);
    std::vector<std::filesystem::path> adapters;
    for (const std::string& argument : expand_adapters(adapters_, context.console)) {
      const WeightedPath source = merged_ ? split_weight(argument) : WeightedPath{argument};
      terms_.push_back({adapter_path(source.path, context), source.weight});
      has_weights_ = has_weights_ || source.path != argument;
      // A merge may add one adapter twice, which is one adapter to verify.
      if (!merged_ ||
          std::find(adapters.begin(), adapters.end(), terms_.back().path) == adapters.end())
        adapters.push_back(terms_.back().path);
    }
    Merged merged = open_merged(context);
    const AdapterIndex companions = open_all(adapters, context);
    if (merged.checkpoint && companions.entries().size() == adapters.size())
      compare_joint_merge(*base, companions, merged, context);
    std::optional<Probe> probe;
    if (probe_) probe = read_probe(*probe_);
    ProgressLine progress(context.streams, "verify", "B",
                          !context.global.no_progress && !context.global.quiet);
    Outcome outcome;
    JsonArray reports;
    std::vector<VerifiedAdapter> verified;
    verified.reserve(adapters.size());
    for (const std::filesystem::path& adapter : adapters) {
      VerifyOptions options;
      options.config = adapter_config_from(adapter_config_);
      options.adapter = adapter;
      options.base = base ? &*base : nullptr;
      options.full = full_;
      options.merged = merged.checkpoint ? &*merged.checkpoint : nullptr;
      options.merged_report = merged.report;
      options.companions = &companions;
      for (const AdapterIndex::Entry& entry : companions.entries())
        if (merged_ && entry.adapter.path != options.adapter)
          options.candidates.push_back(&entry.adapter);
      options.filter = filter_;
      options.check_outputs = outputs_ || null_samples_ > 0;
      options.null_samples = static_cast<int>(null_samples_);
      options.probe = probe ? &*probe : nullptr;
      options.engine = [&context]() -> Engine& { return context.engine(); };
      options.require_proof = require_proof_;
      options.strict = strict_;
      options.threads = context.threads();
      options.sinks = context.sinks;
      options.sinks.progress = &progress;
      VerifyReport report = verify(options);
      progress.clear();
      if (!is_document())
        print_verify_report(report,
                            {.all_modules = modules_, .is_one_of_many = adapters.size() > 1},
                            context.console);
      // A run over thousands of adapters keeps what its output needs.
      if (context.console.is_json()) {
        reports.push_back(verify_report_json(report));
        outcome.findings.insert(outcome.findings.end(), report.findings.begin(),
                                report.findings.end());
      }
      if (baseline_ || write_baseline_) baseline.take(report);
      verified.push_back(for_summary(std::move(report)));
    }
    outcome.exit_code = exit_code(verified);
    if (format_ == "junit") context.console.raw(junit_report(verified));
    if (format_ == "sarif") context.console.raw(sarif_report(verified, outcome.exit_code));
    if (format_ == "github") context.console.raw(github_report(verified));
    if (!is_document() && verified.size() > 1) print_verify_summary(verified, context.console);
    baseline.report_stale(filter_, context.console);
    if (write_baseline_) baseline.write(*write_baseline_, force_, context.console);
    outcome.result = JsonObject{{"adapters", std::move(reports)},
                                {"summary", verify_summary_json(verified)},
                                {"baseline", baseline.json(filter_)}};
    return outcome;
  }

  // A run over thousands of adapters keeps no files, and the texts of findings for documents only:
  // elsewhere they are written already.
  VerifiedAdapter for_summary(VerifyReport report) const {
    VerifiedAdapter kept;
    if (report.adapter) {
      kept.weights_path = report.adapter->weights_path;
      kept.base = stated_base(*report.adapter, report.manifest);
    }
    if (is_document()) {
      report.adapter.reset();
      report.modules.clear();
      report.base_modules.clear();
      kept.report = std::move(report);
      return kept;
    }
    kept.report.path = std::move(report.path);
    kept.report.is_readable = report.is_readable;
    kept.report.verdict = report.verdict;
    for (const CheckResult& check : report.checks)
      kept.report.checks.push_back({check.name, check.status, {}});
    kept.report.findings = severities_of(report.findings);
    kept.report.left_out = severities_of(report.left_out);
    kept.report.accepted = severities_of(report.accepted);
    return kept;
  }

  static Findings severities_of(const Findings& findings) {
    Findings severities(findings.size());
    for (std::size_t i = 0; i < findings.size(); ++i) {
      severities[i].severity = findings[i].severity;
      severities[i].more = findings[i].more;
    }
    return severities;
  }

  static int exit_code(const std::vector<VerifiedAdapter>& verified) {
    const auto any = [&](auto&& claim) {
      return std::any_of(verified.begin(), verified.end(),
                         [&](const VerifiedAdapter& adapter) { return claim(adapter.report); });
    };
    return any([](const VerifyReport& report) { return !report.is_readable; })  ? kBadInput
           : any([](const VerifyReport& report) { return report.has_error(); }) ? kAnswerIsNo
           : any([](const VerifyReport& report) { return report.is_inconclusive(); })
               ? kInconclusive
               : kDone;
  }

  struct Term {
    std::filesystem::path path;
    double weight = 1;
  };

  struct Merged {
    std::optional<Checkpoint> checkpoint;
    std::optional<MergedReport> report;  // of a joint merge, or why there is no checkpoint
  };

  // A checkpoint that is there and damaged is a finding, as an adapter would be.
  Merged open_merged(Context& context) const {
    Merged merged;
    if (!merged_) return merged;
    if (!base_)
      throw Error(ErrorKind::usage, "--merged needs --base: the base that was merged into");
    require_no_adapter(*merged_);
    std::error_code ignored;
    try {
      merged.checkpoint = open_checkpoint(*merged_, base_options_, context.huggingface_caches());
    } catch (const Error& error) {
      if (!std::filesystem::exists(*merged_, ignored)) throw;
      merged.report = unreadable_merged(*merged_, error);
    }
    return merged;
  }

  // The merge of all adapters given, where their weights are given or lora_merge.json names them.
  void compare_joint_merge(const Checkpoint& base, const AdapterIndex& companions, Merged& merged,
                           Context& context) const {
    std::optional<std::vector<WeightedAdapter>> joint;
    if (has_weights_) {
      joint.emplace();
      for (const Term& term : terms_)
        joint->push_back({companions.find(term.path)->adapter, term.weight});
    } else {
      std::vector<const Adapter*> known;
      for (const AdapterIndex::Entry& entry : companions.entries()) known.push_back(&entry.adapter);
      joint = recorded_merge(*merged.checkpoint, known, context.threads());
    }
    if (!joint) return;
    std::string sum = "base";
    for (const WeightedAdapter& one : *joint)
      sum += " + " + (one.weight == 1 ? "" : number_text(one.weight, 6) + " * ") +
             one.adapter.path.string();
    context.console.note(*merged_ + " is compared with " + sum +
                         (has_weights_ ? "" : ", as its lora_merge.json says"));
    MergedOptions options;
    options.threads = context.threads();
    options.sinks = context.sinks;
    merged.report = compare_merged(*joint, base, *merged.checkpoint, options);
    merged.checkpoint.reset();
  }

  // Those that can be opened, for what concerns several adapters or a merge.
  AdapterIndex open_all(const std::vector<std::filesystem::path>& adapters,
                        Context& context) const {
    AdapterIndex opened;
    if (adapters.size() < 2 && !merged_) return opened;
    for (const std::filesystem::path& adapter : adapters) {
      try {
        opened.open(adapter, adapter_config_from(adapter_config_));
      } catch (const Error& error) {
        context.sinks.debug(error.message());
      }
    }
    return opened;
  }

  // The adapter that an argument means: that of a run, or the one whose weights file it names. A
  // run directory without any adapter yet is a finding of this path, not the end of the run.
  std::filesystem::path adapter_path(const std::string& path, Context& context) const {
    if (!adapter_config_)
      if (const auto directory = directory_of_weights(path)) {
        context.console.note("using the adapter in " + directory->string());
        return *directory;
      }
    try {
      return resolve_adapter(path, context);
    } catch (const Error& error) {
      context.sinks.debug(error.message());
      return path;
    }
  }

  std::vector<std::string> adapters_, explain_;
  std::vector<Term> terms_;   // as given: with their weights, repeated ones too
  bool has_weights_ = false;  // ADAPTER@WEIGHT was given
  std::optional<std::string> base_, adapter_config_, merged_, probe_, baseline_, write_baseline_;
  std::int64_t null_samples_ = 0;
  std::string format_ = "text";
  OpenCheckpointOptions base_options_;
  FindingFilter filter_;
  bool full_ = false, outputs_ = false, strict_ = false, require_proof_ = false, modules_ = false,
       force_ = false;
};

}  // namespace

Verb verify_verb() {
  return {
      "verify",
      "Core",
      "prove that an adapter is what it claims to be",
      "Checks integrity of the files, architecture (configuration, keys and shapes, against the "
      "base if given), parameters (finite, with effect, equal to what was recorded when it was "
      "saved), identity of the base (--base), security of the folder, a merge (--merged: replayed "
      "and compared bit for bit), and outputs (--outputs: same input, same answer).\n\n"
      "The verdict is proven, plausible, contradicted or unreadable. Exit code 0 when nothing is "
      "wrong, 1 on an error finding, 3 when a path is no adapter or damaged, 7 when a check asked "
      "for could not be made. Findings that are ignored or accepted by a baseline count for "
      "nothing but keep the verdict from being proven; an unreadable path always counts.",
      "lora verify adapter\n"
      "lora verify adapter --base base --outputs --require-proof\n"
      "lora verify adapter --base base --merged merged\n"
      "lora verify \"adapters/*\" --format sarif > lora.sarif\n"
      "lora verify adapter --ignore LV505 --baseline known.json\n"
      "lora verify --explain LV501,key-missing",
      []() -> std::unique_ptr<Command> { return std::make_unique<Verify>(); }};
}

}  // namespace lora::cli
