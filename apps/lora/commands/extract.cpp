#include "lora/ops/extract.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

std::string_view kind_name(CarriedPart::Kind kind) {
  switch (kind) {
    case CarriedPart::Kind::token_rows:
      return "token_rows";
    case CarriedPart::Kind::bias:
      return "bias";
    case CarriedPart::Kind::module:
      break;
  }
  return "module";
}

class Extract final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("The two checkpoints");
    options.text("--base", base_, "BASE", kBaseHelp).is_required = true;
    options.text("--tuned", tuned_, "TUNED", "the same model after training").is_required = true;
    options.group("How much (exactly one)");
    options.integer("-r,--rank", options_.rank, 1, "rank of every module, at most its full one");
    options.number("--energy", options_.energy, 0, 1,
                   "share of each difference's squared norm to keep, above 0");
    options.text("--budget", budget_, "SIZE",
                 "bytes of the adapter's tensors; ranks lower the whole error most");
    options.group("Output");
    options.text("-o,--output", output_, "DIR", "adapter directory to write").is_required = true;
    options.flag("-f,--force", options_.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "compute everything, write nothing");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of the factors (default: f32)");
    options.list("--exclude-modules", options_.exclude_modules, "NAME,...",
                 "leave out what changed in these modules");
    options.text("--base-name", options_.base_name, "NAME",
                 "name recorded as base_model_name_or_path (default: --base)");
    options.size("--max-memory", options_.max_memory,
                 "work space; less means fewer threads (default: 1GB)");
    options.flag("--modules", all_, "list every module");
    options.group("Bare state dicts");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    options_.output = output_;
    options_.threads = context.threads();
    if (budget_) options_.budget = parse_size("--budget", *budget_);
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    const Checkpoint base = open_base(base_, base_options_, context);
    const Checkpoint tuned = open_base(tuned_, base_options_, context);
    options_.base = &base;
    options_.tuned = &tuned;
    if (!options_.base_name && base.config && base.config->is_transformers())
      options_.base_name = base_;
    ProgressLine progress(context.streams, "extract", "",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    const ExtractReport report = extract(options_, sinks);
    progress.clear();
    for (const std::string& note : report.notes) context.console.note(printable(note));
    if (!report.left_out.empty())
      context.console.warning(plural(report.left_out.size(), "changed tensor") +
                              " of excluded modules left out");
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  void print(const ExtractReport& report, Console& console) const {
    print_modules(report, console);
    print_carried(report, console);
    console.line(std::string(options_.dry_run ? "would write " : "wrote ") +
                 report.output.string() + ": " + plural(report.modules.size(), "module") +
                 " with factors, " + bytes_text(report.bytes));
    if (report.modules.empty()) return;
    if (report.is_rounding)
      console.line(
          "nothing is lost: the differences have these ranks, and what the factors leave "
          "out is no more than the rounding of the tuned weights");
    else
      console.line("error " + percent_text(report.error, 3) + ", best possible at " +
                   (report.modules.size() == 1 ? "this rank " : "these ranks ") +
                   percent_text(report.least, 3));
  }

  // The largest error comes first.
  void print_modules(const ExtractReport& report, Console& console) const {
    constexpr std::size_t kFew = 6;
    std::vector<const ExtractedModule*> modules;
    for (const ExtractedModule& module : report.modules) modules.push_back(&module);
    if (!all_)
      std::stable_sort(modules.begin(), modules.end(),
                       [](const auto* a, const auto* b) { return a->error > b->error; });
    const std::size_t shown = all_ ? modules.size() : std::min(kFew, modules.size());
    Table table({"module", "rank", "norm", "error", "best possible"},
                {false, true, true, true, true});
    for (std::size_t i = 0; i < shown; ++i) {
      const ExtractedModule& module = *modules[i];
      table.row({printable(module.module_path),
                 std::to_string(module.rank) + " of " + std::to_string(module.full_rank),
                 number_text(module.norm),
                 module.is_rounding ? "rounding" : percent_text(module.error, 3),
                 module.is_rounding ? "" : percent_text(module.least, 3)});
    }
    if (shown != 0)
      for (const std::string& line : table.lines()) console.line(line);
    if (shown < modules.size())
      console.line("and " + std::to_string(modules.size() - shown) + " more modules (--modules)");
  }

  static void print_carried(const ExtractReport& report, Console& console) {
    for (const CarriedPart& part : report.carried)
      console.line("carried whole: " + printable(part.name) + ", " +
                   (part.kind == CarriedPart::Kind::token_rows
                        ? plural(static_cast<std::uint64_t>(part.rows), "token row") + ", "
                        : "") +
                   bytes_text(part.bytes));
  }

  JsonObject result_of(const ExtractReport& report) const {
    JsonArray modules, carried, left_out, notes;
    for (const ExtractedModule& module : report.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"tensor", printable(module.base_name)},
                                   {"rank", module.rank},
                                   {"full_rank", module.full_rank},
                                   {"norm", module.norm},
                                   {"error", module.error},
                                   {"best_possible", module.least},
                                   {"exact_svd", module.is_exact},
                                   {"rounding_only", module.is_rounding}});
    for (const CarriedPart& part : report.carried)
      carried.push_back(JsonObject{{"kind", kind_name(part.kind)},
                                   {"tensor", printable(part.name)},
                                   {"rows", part.rows},
                                   {"bytes", part.bytes}});
    for (const std::string& name : report.left_out) left_out.emplace_back(printable(name));
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    return {{"output", report.output.string()},
            {"written", !options_.dry_run},
            {"base_root", report.base_root},
            {"modules", std::move(modules)},
            {"carried", std::move(carried)},
            {"left_out", std::move(left_out)},
            {"unchanged", report.unchanged},
            {"error", report.error},
            {"best_possible", report.least},
            {"rounding_only", report.is_rounding},
            {"bytes", report.bytes},
            {"notes", std::move(notes)}};
  }

  ExtractOptions options_;
  std::string base_, tuned_, output_;
  std::optional<std::string> budget_, dtype_;
  bool all_ = false;
  OpenCheckpointOptions base_options_;
};

}  // namespace

Verb extract_verb() {
  return {
      "extract",
      "Make",
      "make an adapter from a base and a tuned checkpoint",
      "Factors the difference of every linear layer, Conv1D and embedding at a rank, and carries "
      "whole what else changed: token rows of an embedding that changed in few, biases, norms, "
      "output heads.\n\nFor every module the report has the error, measured on the factors as "
      "written, and the least error that any adapter of this rank has. That bound is proven: by "
      "all singular values of small matrices, and by a Cholesky factorisation of what the random "
      "range finder left over of large ones. Where the tuned checkpoint is a merge, its own rank "
      "gives the same update back to rounding, and the report says so.",
      "lora extract --base base --tuned tuned -o adapter --rank 16\n"
      "lora extract --base base --tuned tuned -o adapter --energy 0.95\n"
      "lora extract --base base --tuned tuned -o adapter --budget 20MB --dtype bf16",
      []() -> std::unique_ptr<Command> { return std::make_unique<Extract>(); }};
}

}  // namespace lora::cli
