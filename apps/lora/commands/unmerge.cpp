#include "lora/ops/unmerge.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Unmerge final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("MERGED", merged_, "checkpoint that the adapters were merged into")
        .is_required = true;
    options.each("--adapter", adapter_paths_, "ADAPTER",
                 "adapter to take out, once for each in the order of the merge; ADAPTER@WEIGHT as "
                 "it was merged");
    options.text("--base-lock", base_lock_, "FILE", "base.lock.json of the base, for the proof");
    options.group("Output");
    options.text("-o,--output", output_, "DIR", "checkpoint directory to write").is_required = true;
    options.flag("-f,--force", options_.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check everything, write nothing");
    options.flag("--allow-inexact", options_.allow_inexact,
                 "write the result although it is not proven to be the base");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of the base, where the merge changed it");
    options.size("--max-memory", options_.max_memory,
                 "memory to use besides mapped files (default: 256MB)");
    options.group("A bare state dict");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    options_.output = output_;
    options_.threads = context.threads();
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    if (base_lock_) options_.base_lock = read_base_lock(*base_lock_);
    for (const std::string& argument : adapter_paths_) {
      const WeightedPath source = split_weight(argument);
      options_.adapters.push_back(
          {open_adapter(resolve_adapter(source.path, context)), source.weight});
    }
    const Checkpoint merged = open_base(merged_, base_options_, context);
    options_.merged = &merged;
    ProgressLine progress(context.streams, "unmerge", "B",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    const UnmergeReport report = unmerge(options_, sinks);
    progress.clear();
    for (const std::string& note : report.notes) context.console.note(printable(note));
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  void print(const UnmergeReport& report, Console& console) const {
    console.line(std::string(options_.dry_run ? "would write " : "wrote ") +
                 report.output.string() + ": " + plural(report.tensors.size(), "tensor") +
                 " restored, " + bytes_text(report.weight_bytes));
    if (options_.dry_run) {
      console.line("not checked by a dry run: whether it is the base exactly");
      return;
    }
    if (report.is_exact)
      console.line("exact: the digests are those of the base that " + report.recorded_in +
                   " records");
    else
      console.warning("not proven to be the base: the restored values are within " +
                      number_text(report.worst_ulps) + " ulp of it, " +
                      count_text(static_cast<std::uint64_t>(report.uncertain)) +
                      " may differ from it" + copies_text(report));
    if (report.root) console.line("root " + report.root->hex());
  }

  static std::string copies_text(const UnmergeReport& report) {
    const auto copies = std::count_if(report.tensors.begin(), report.tensors.end(),
                                      [](const RestoredTensor& tensor) { return tensor.is_copy; });
    return copies == 0 ? ""
                       : "; tensors that are unproven copies of it, from the adapters: " +
                             std::to_string(copies);
  }

  JsonObject result_of(const UnmergeReport& report) const {
    JsonArray tensors, files, notes;
    for (const RestoredTensor& tensor : report.tensors)
      tensors.push_back(
          JsonObject{{"tensor", printable(tensor.base_name)},
                     {"elements", tensor.elements},
                     {"equal", tensor.is_equal ? Json(*tensor.is_equal) : Json()},
                     {"copy", tensor.is_copy},
                     {"gives_merge", tensor.gives_merge ? Json(*tensor.gives_merge) : Json()},
                     {"worst_ulps", tensor.is_copy ? Json() : Json(tensor.worst_ulps)},
                     {"uncertain", tensor.is_copy ? Json() : Json(tensor.uncertain)}});
    for (const MergeFile& file : report.files)
      files.push_back(JsonObject{{"name", file.name}, {"bytes", file.bytes}});
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    return {{"output", report.output.string()},
            {"written", !options_.dry_run},
            {"exact", options_.dry_run ? Json() : Json(report.is_exact)},
            {"recorded_in", report.recorded_in.empty() ? Json() : Json(report.recorded_in)},
            {"worst_ulps", options_.dry_run ? Json() : Json(report.worst_ulps)},
            {"uncertain", options_.dry_run ? Json() : Json(report.uncertain)},
            {"tensors", std::move(tensors)},
            {"weight_bytes", report.weight_bytes},
            {"root", report.root ? Json(report.root->hex()) : Json()},
            {"files", std::move(files)},
            {"notes", std::move(notes)}};
  }

  UnmergeOptions options_;
  std::vector<std::string> adapter_paths_;
  std::optional<std::string> base_lock_, dtype_;
  std::string merged_, output_;
  OpenCheckpointOptions base_options_;
};

}  // namespace

Verb unmerge_verb() {
  return {
      "unmerge",
      "Apply",
      "take adapters out of a merged checkpoint again",
      "Subtracts the updates of the adapters with the kernels that merge adds them with. A rounded "
      "sum does not always tell its terms, so the result is called exact only where the digests of "
      "the restored tensors are those recorded of the base, by lora_merge.json, the adapters' "
      "lora_manifest.json or --base-lock. Anything else is refused with a bound in steps of the "
      "weights (ulp), and written with --allow-inexact.\n\nWhat an adapter replaced whole (saved "
      "modules, biases, token rows) is not in the merge any more and is refused by name. An "
      "embedding that it brought along beside its factors, and the twin of a head that the merge "
      "untied, are the base's own and are taken as they are.",
      "lora unmerge merged --adapter adapter -o base-again\n"
      "lora unmerge merged --adapter style@0.7 --adapter facts@0.3 -o near-base --allow-inexact",
      []() -> std::unique_ptr<Command> { return std::make_unique<Unmerge>(); }};
}

}  // namespace lora::cli
