#include "lora/ops/merge.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Merge final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.rest("ADAPTER", adapter_paths_,
                 "adapter or run directories, added in this order; ADAPTER@WEIGHT weighs one");
    options.text("--base", base_, "BASE", kBaseHelp);
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    options.flag("--any-base", options_.any_base, "merge although another base is recorded");
    options.group("Output");
    options.text("-o,--output", output_, "DIR", "checkpoint directory to write").is_required = true;
    options.flag("-f,--force", options_.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check everything, write nothing");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of float weights (default: every tensor keeps the base's)");
    options.choice("--container", container_, {"safetensors"},
                   "write a torch base as safetensors (default: the base's container)");
    options.choice("--compat", compat_, {"safe_merge"},
                   "round every update before it is added, as PEFT's safe_merge does");
    options.size("--max-memory", options_.max_memory,
                 "memory to use besides mapped files (default: 256MB)");
    options.flag("--modules", all_, "list every tensor that changes");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    options_.output = output_;
    options_.threads = context.threads();
    options_.is_safe_merge = compat_.has_value();
    options_.as_safetensors = container_.has_value();
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    open_adapters(context);
    const Checkpoint base =
        open_base_for(base_, options_.adapters.front().adapter.config, base_options_, context);
    options_.base = &base;
    ProgressLine progress(context.streams, "merge", "B",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    const MergeReport report = merge(options_, sinks);
    progress.clear();
    for (const std::string& note : report.notes) context.console.note(printable(note));
    print(report, context.console);
    return {kDone, result_of(report), findings_of(report, context.console)};
  }

 private:
  void open_adapters(Context& context) {
    for (const std::string& argument : adapter_paths_)
      options_.adapters.push_back(open_weighted(argument, adapter_config_, context));
    if (options_.adapters.size() < 2) return;
    std::string order;
    for (const WeightedAdapter& one : options_.adapters)
      order += (order.empty() ? "" : ", then ") + one.adapter.path.string() +
               (one.weight == 1 ? "" : " times " + number_text(one.weight, 6));
    context.console.note("order of application: " + order);
  }

  void print(const MergeReport& report, Console& console) const {
    print_weights(report, console);
    console.line(std::string(options_.dry_run ? "would write " : "wrote ") +
                 report.output.string() + ": " + plural(report.weights.size(), "tensor") +
                 " changed, " + std::to_string(report.copied) + " as in the base, " +
                 bytes_text(report.weight_bytes));
    for (const MergeFile& file : report.files)
      console.line("  " + file.name + (file.bytes ? "  " + bytes_text(file.bytes) : ""));
    if (report.estimated_seconds)
      console.line("about " + number_text(*report.estimated_seconds, 2) +
                   " s to compute and to hash; writing to the disk comes on top");
    if (report.survived)
      console.line("of the update's energy " + percent_text(*report.survived, 4) +
                   " is in weights that changed (" + percent_text(*report.changed, 4) +
                   " of them did); cosine of intended and realised update " +
                   number_text(*report.cosine, 6));
    if (report.root) console.line("root " + report.root->hex());
  }

  // What lost most to rounding comes first.
  void print_weights(const MergeReport& report, Console& console) const {
    constexpr std::size_t kFew = 6;
    std::vector<const MergedWeight*> weights;
    for (const MergedWeight& weight : report.weights) weights.push_back(&weight);
    std::stable_sort(weights.begin(), weights.end(), [](const auto* a, const auto* b) {
      return a->survived.value_or(2) < b->survived.value_or(2);
    });
    const std::size_t shown = all_ ? weights.size() : std::min(kFew, weights.size());
    Table table({"tensor", "shape", "dtype", "changed", "energy kept", "cosine"},
                {false, false, false, true, true, true});
    for (std::size_t i = 0; i < shown; ++i) {
      const MergedWeight& weight = *weights[i];
      table.row({printable(weight.base_name), shape_to_string(weight.shape),
                 std::string(to_string(weight.dtype)),
                 weight.changed ? percent_text(*weight.changed, 4) : "",
                 weight.survived ? percent_text(*weight.survived, 4) : "",
                 weight.cosine ? number_text(*weight.cosine, 6) : ""});
    }
    if (shown != 0)
      for (const std::string& line : table.lines()) console.line(line);
    if (shown < weights.size())
      console.line("and " + std::to_string(weights.size() - shown) + " more tensors (--modules)");
  }

  static Findings findings_of(const MergeReport& report, Console& console) {
    if (!report.is_lossy) return {};
    Finding finding;
    finding.rule = "LV706";  // as verify names it on what was written
    finding.severity = Severity::warning;
    finding.message = "rounding costs much of the update: " + percent_text(*report.survived, 4) +
                      " of its energy is in weights that changed at all, and the cosine of "
                      "intended and realised update is " +
                      number_text(*report.cosine, 3);
    finding.file = report.output.string();
    finding.hint = "write wider weights (--dtype f32), or keep the adapter beside its base";
    console.warning(finding.message + "; " + finding.hint);
    return {finding};
  }

  JsonObject result_of(const MergeReport& report) const {
    const auto figure = [](const std::optional<double>& value) {
      return value ? Json(*value) : Json();
    };
    JsonArray adapters, weights, files, untied, notes;
    for (const WeightedAdapter& one : options_.adapters)
      adapters.push_back(JsonObject{{"path", one.adapter.path.string()}, {"weight", one.weight}});
    for (const MergedWeight& weight : report.weights)
      weights.push_back(JsonObject{{"tensor", printable(weight.base_name)},
                                   {"module", printable(weight.module_path)},
                                   {"dtype", to_string(weight.dtype)},
                                   {"shape", JsonArray(weight.shape.begin(), weight.shape.end())},
                                   {"has_update", weight.has_update},
                                   {"changed", figure(weight.changed)},
                                   {"survived", figure(weight.survived)},
                                   {"cosine", figure(weight.cosine)}});
    for (const MergeFile& file : report.files)
      files.push_back(JsonObject{{"name", file.name}, {"bytes", file.bytes}});
    for (const std::string& name : report.untied) untied.emplace_back(printable(name));
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    return {{"output", report.output.string()},
            {"written", !options_.dry_run},
            {"adapters", std::move(adapters)},
            {"compat", options_.is_safe_merge ? "safe_merge" : "merge"},
            {"dtype", options_.dtype ? Json(to_string(*options_.dtype)) : Json()},
            {"tensors", std::move(weights)},
            {"copied", report.copied},
            {"weight_bytes", report.weight_bytes},
            {"changed", figure(report.changed)},
            {"survived", figure(report.survived)},
            {"cosine", figure(report.cosine)},
            {"estimated_seconds", figure(report.estimated_seconds)},
            {"untied", std::move(untied)},
            {"root", report.root ? Json(report.root->hex()) : Json()},
            {"files", std::move(files)},
            {"notes", std::move(notes)}};
  }

  MergeOptions options_;
  std::vector<std::string> adapter_paths_;
  std::optional<std::string> base_, adapter_config_, dtype_, container_, compat_;
  std::string output_;
  bool all_ = false;
  OpenCheckpointOptions base_options_;
};

}  // namespace

Verb merge_verb() {
  return {
      "merge",
      "Apply",
      "write base + adapters as a checkpoint of its own",
      "Adds the updates of the adapters to the weights of the base in one pass, in bounded memory, "
      "and writes the result with the base's files, index, dtypes, configuration and tokenizer. "
      "The "
      "numbers are those of PEFT's merge, one rounding a weight; lora verify --merged proves them. "
      "Where a changed dtype or several adapters meet in a weight, everything is summed in f32 "
      "first. Weights that no adapter changes stay byte for byte.\n\nAn embedding and an output "
      "head in one matrix become two where the adapter makes them different, so that the "
      "result computes what base + adapter compute. What rounding loses of the update is reported, "
      "and so is an existing output: up to date, stale, or foreign.",
      "lora merge adapter --base base -o merged\n"
      "lora merge style@0.7 facts@0.3 --base base -o merged --dtype f32\n"
      "lora verify adapter --base base --merged merged",
      []() -> std::unique_ptr<Command> { return std::make_unique<Merge>(); }};
}

}  // namespace lora::cli
