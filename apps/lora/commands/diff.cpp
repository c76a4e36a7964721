#include "lora/ops/diff.h"

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/diff_report.h"
#include "commands/output_report.h"
#include "html/diff_page.h"
#include "lora/base/atomic_write.h"
#include "lora/base/error.h"
#include "lora/ops/diff_outputs.h"

namespace lora::cli {
namespace {

class Diff final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("A", a_, "adapter, run directory or checkpoint");
    options.positional("B", b_, "the same kind as A, or with --base the other kind");
    options.text("--base", base_, "BASE", kBaseHelp);
    options.flag("--outputs", outputs_,
                 "also compare outputs on the same input (adapters need --base)");
    options.flag("--rank", rank_, "checkpoints: rank of every difference, also of large tensors");
    options.text("--html", html_, "FILE", "also write a page with heat maps and curves");
    options.flag("-f,--force", force_, "replace an existing page");
    options.flag("--all", all_, "list every module or tensor, not only the most different ones");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    if (html_) require_absent(*html_, force_);
    const auto a = resolve_adapter(a_, context);
    const auto b = resolve_adapter(b_, context);
    const bool a_is_adapter = is_adapter_directory(a);
    if (a_is_adapter != is_adapter_directory(b))
      return a_is_adapter ? diff_tuned(a, b_, context) : diff_tuned(b, a_, context);
    if (outputs_ && a_is_adapter && !base_)
      throw Error(ErrorKind::usage, "--outputs needs --base: outputs are computed on a base");
    return a_is_adapter ? diff_adapters(a, b, context) : diff_checkpoints(context);
  }

 private:
  Outcome diff_tuned(const std::filesystem::path& adapter, const std::string& tuned,
                     Context& context) {
    if (!base_) {
      (void)open_checkpoint(tuned, {}, context.huggingface_caches());
      throw Error(ErrorKind::incompatible,
                  "cannot compare " + a_ + " with " + b_ + ": one is an adapter, the other is not")
          .with_hint("with --base BASE the adapter is compared with the checkpoint minus the base");
    }
    const Adapter update = open_adapter(adapter);
    const Checkpoint base = open_base(*base_, base_options_, context);
    const Checkpoint checkpoint = open_base(tuned, base_options_, context);
    AdapterDiffOptions options;
    options.threads = context.threads();
    options.sinks = context.sinks;
    const TunedDiff result = diff(update, base, checkpoint, options);
    print_diff(result, all_, context.console);
    write_page(result, {});
    return {result.is_equal() ? kDone : kAnswerIsNo, diff_json(result), {}};
  }

  Outcome diff_adapters(const std::filesystem::path& a, const std::filesystem::path& b,
                        Context& context) {
    const Adapter left = open_adapter(a);
    const Adapter right = open_adapter(b);
    AdapterDiffOptions options;
    options.threads = context.threads();
    options.sinks = context.sinks;
    const AdapterDiff result = diff(left, right, options);
    print_diff(result, all_, context.console);
    JsonObject document = diff_json(result);
    std::optional<OutputDiff> outputs;
    if (outputs_) {
      const Checkpoint base = open_base(*base_, base_options_, context);
      outputs = add_outputs({&base, &left}, {&base, &right}, context, document);
    }
    write_page(result, outputs);
    return {result.is_equal() ? kDone : kAnswerIsNo, std::move(document), {}};
  }

  template <typename Result>
  void write_page(const Result& result, const std::optional<OutputDiff>& outputs) const {
    if (html_)
      write_file_atomically(*html_, diff_page({a_, b_, outputs}, result),
                            WriteOptions{force_, nullptr});
  }

  static OutputDiff add_outputs(const ModelSide& a, const ModelSide& b, Context& context,
                                JsonObject& document) {
    const OutputDiff outputs = diff_outputs(context.engine(), a, b);
    Console& console = context.console;
    console.line("outputs on the same input: " + difference_text(outputs.difference));
    JsonObject result = difference_json(outputs.difference);
    for (const auto& [name, effect] :
         {std::pair("A", &outputs.effect_a), std::pair("B", &outputs.effect_b)}) {
      if (!*effect) continue;
      console.line(std::string("  effect of ") + name +
                   " on the base: " + difference_text(**effect));
      result[name == std::string_view("A") ? "effect_a" : "effect_b"] = difference_json(**effect);
    }
    document["outputs"] = std::move(result);
    return outputs;
  }

  Outcome diff_checkpoints(Context& context) {
    const Checkpoint left = open_base(a_, base_options_, context);
    const Checkpoint right = open_base(b_, base_options_, context);
    ProgressLine progress(context.streams, "diff", "tensors",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    CheckpointDiffOptions options;
    options.threads = context.threads();
    options.sinks = sinks;
    if (rank_) options.rank_elements = -1;
    const CheckpointDiff result = diff(left, right, options);
    progress.clear();
    print_diff(result, all_, context.console);
    JsonObject document = diff_json(result);
    std::optional<OutputDiff> outputs;
    if (outputs_) outputs = add_outputs({&left, nullptr}, {&right, nullptr}, context, document);
    write_page(result, outputs);
    return {result.is_equal() ? kDone : kAnswerIsNo, std::move(document), {}};
  }

  std::string a_, b_;
  std::optional<std::string> base_, html_;
  OpenCheckpointOptions base_options_;
  bool outputs_ = false, all_ = false, rank_ = false, force_ = false;
};

}  // namespace

Verb diff_verb() {
  return {
      "diff",
      "Core",
      "say exactly how two adapters or two checkpoints differ",
      "Two adapters: configuration, keys, and for each module the exact distance, cosine and "
      "principal angles of the applied updates, whatever their ranks, scalings and "
      "factorisations, summed by kind and by layer. Two checkpoints: tensors added, removed and "
      "changed, by block, with the number of representable values between the two and the rank of "
      "the difference. An adapter and a tuned checkpoint, with the base of both: what tuning "
      "changed against the adapter's update. Exit code 1 when they differ.",
      "lora diff adapter-v1 adapter-v2\n"
      "lora diff adapter-v1 adapter-v2 --base base --outputs\n"
      "lora diff adapter-v1 adapter-v2 --html page.html\n"
      "lora diff base finetuned --rank --json\n"
      "lora diff adapter merged --base base",
      []() -> std::unique_ptr<Command> { return std::make_unique<Diff>(); }};
}

}  // namespace lora::cli
