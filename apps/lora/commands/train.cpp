#include <algorithm>
#include <cmath>
#include <future>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/lora_flags.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/train_run.h"

namespace lora::cli {
namespace {

std::string rate_text(double tokens_per_second) {
  return (tokens_per_second < 100
              ? number_text(tokens_per_second, 3)
              : count_text(static_cast<std::uint64_t>(std::llround(tokens_per_second)))) +
         " tok/s";
}

std::string loss_text(const TrainEvent& event) {
  return "loss " + number_text(event.loss) + ", " + rate_text(event.tokens_per_second);
}

// The lines of a text file, empty ones left out.
std::vector<std::string> lines_of(const std::string& path) {
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                              file->bytes().size());
  std::vector<std::string> lines;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line = text.substr(start, end - start);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) lines.emplace_back(line);
    start = end + 1;
  }
  if (lines.empty())
    throw Error(ErrorKind::usage, "--add-tokens " + path + " names no token, expected one a line")
        .in_file(path);
  return lines;
}

Json json_of(const std::optional<PackingReport>& packing) {
  if (!packing) return nullptr;
  return JsonObject{{"documents", packing->documents},
                    {"rows", packing->rows},
                    {"row_tokens", packing->row_tokens},
                    {"fill", packing->fill}};
}

class Train final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.text("--base", base_, "BASE", kBaseHelp);
    options.many("--data", data_, "FILE", ".txt, .jsonl or .safetensors (an mlp's x and y)");
    options.text("--run-dir", run_dir_, "DIR", "run directory to write").is_required = true;
    options.text("--adapter", adapter_, "DIR", "continue this adapter; its configuration holds");
    options.flag("--resume", o_.resume, "go on with the run in --run-dir");
    options.flag("-f,--force", o_.force, "replace an existing run directory");
    options.flag("--any-memory", o_.any_memory, "begin although the memory seems too small");
    options.flag("-n,--dry-run", o_.dry_run, "check everything and print the plan, write nothing");
    lora_.add_to(options);
    options.text(
        "--add-tokens", add_tokens_, "FILE",
        "new tokens, one a line: their rows are trained, and the tokenizer that knows them "
        "is written beside the adapter");
    options.group("Training");
    options.integer("--steps", o_.steps, 1, "optimizer steps");
    options.number("--epochs", o_.epochs, 0, 1e9, "passes over the data (default: 3)");
    options.integer("--batch-size", o_.batch_size, 1, "sequences a micro-batch");
    options.integer("--grad-accum", o_.grad_accum, 1, "micro-batches a step");
    options.integer("--seq-len", o_.seq_len, 2, "longest sequence in tokens");
    options.number("--lr", o_.lr, 0, 1e3, "learning rate");
    options.choice("--schedule", o_.schedule, {"cosine", "linear", "constant"},
                   "of the learning rate after warmup");
    options.number("--warmup", o_.warmup, 0, 1e12, "below 1: share of all steps; else steps");
    options.number("--weight-decay", o_.weight_decay, 0, 1e3, "decoupled (AdamW)");
    options.number("--max-grad-norm", o_.max_grad_norm, 0, 1e12,
                   "clip gradients to this norm; 0: off");
    options.list("--betas", betas_, "B1,B2", "AdamW's averages (default: 0.9,0.999)");
    options.number("--eps", o_.eps, 0, 1, "AdamW's epsilon");
    options.choice("--compute", compute_, {"f32", "bf16"},
                   "frozen weights and activations (default: the base's dtype); adapter and "
                   "optimizer stay f32");
    options.choice("--base-dtype", base_dtype_, {"native", "int8", "nf4"},
                   "how the frozen layers are kept: nf4 takes 4.5 bits a value, int8 8.25");
    options.seed("--seed", o_.seed, "seed of initial factors, order and dropout");
    options.toggle("shuffle", o_.shuffle, "visit the data in random order");
    options.choice("--loss-on", o_.loss_on, {"all", "completion"}, "which tokens carry loss");
    options.flag("--pack", o_.pack,
                 "fill rows of --seq-len with several documents that do not see each other");
    options.flag("--group-by-length", o_.group_by_length,
                 "batches of examples of similar length: less padding, another order");
    options.number("--label-smoothing", o_.label_smoothing, 0, 1,
                   "share of each target that all classes get alike, in the training loss");
    options.number("--z-loss", o_.z_loss, 0, 1e6,
                   "weight of the mean of logsumexp(logits)^2 in the training loss");
    options.choice("--checkpointing", checkpointing_, {"none", "layer"},
                   "layer: recompute activations in backward, less memory");
    options.text("--device", device_, "DEVICE",
                 "device to compute on (default: cpu, or LORA_DEVICE)");
    options.group("Evaluation and checkpoints");
    options.many("--eval-data", eval_data_, "FILE", "data for evaluation");
    options.integer("--eval-every", o_.eval_every, 0,
                    "evaluate every N steps (default: at the end)");
    options.integer("--early-stop", o_.early_stop, 0,
                    "stop after N evaluations without improvement; 0: off");
    options.integer("--save-every", o_.save_every, 0,
                    "checkpoint every N steps (default: 10 times a run)");
    options.integer("--keep", o_.keep, 1, "checkpoints to keep");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    o_.run_dir = run_dir_;
    if (o_.resume) take_sources_from_run();
    if (!base_)
      throw Error(ErrorKind::usage, "missing --base")
          .with_hint("give the base to train on: --base DIR");
    if (data_.empty() && !o_.resume) throw Error(ErrorKind::usage, "missing --data");
    fill_options(context);
    base_options_.config_required = true;
    const Checkpoint base = open_base(*base_, base_options_, context);
    o_.base = &base;
    const AdapterConfig config = lora_.config();
    o_.adapter_config = &config;
    std::optional<Adapter> initial;
    if (adapter_) {
      refuse_flags_with_adapter(context);
      initial = open_adapter(resolve_adapter(*adapter_, context));
      o_.initial_adapter = &*initial;
      o_.adapter_config = &initial->config;
    }
    const TrainReport report = train(context);
    return answer(report, context);
  }

 private:
  // A resumed run names its own base, data and adapter.
  void take_sources_from_run() {
    const TrainRun run = read_train_run(run_dir_);
    if (!base_) base_ = run.base_source;
    if (data_.empty())
      for (const RecordedFile& file : run.data) data_.push_back(file.path.string());
    if (eval_data_.empty())
      for (const RecordedFile& file : run.eval_data) eval_data_.push_back(file.path.string());
    if (!adapter_ && run.initial_adapter) adapter_ = run.initial_adapter->path.string();
  }

  void fill_options(Context& context) {
    o_.base_source = *base_;
    o_.data.assign(data_.begin(), data_.end());
    o_.eval_data.assign(eval_data_.begin(), eval_data_.end());
    o_.init = lora_.init();
    if (add_tokens_) o_.add_tokens = lines_of(*add_tokens_);
    o_.threads = context.threads();
    o_.device = device_.value_or(context.default_device());
    o_.layer_checkpointing = checkpointing_ == "layer";
    o_.tool_version = LORA_VERSION;
    if (compute_) o_.compute = *compute_ == "bf16" ? Compute::bf16 : Compute::f32;
    o_.base_dtype = base_dtype_named(base_dtype_);
    if (!betas_.empty()) {
      if (betas_.size() != 2)
        throw Error(ErrorKind::usage,
                    "--betas takes two numbers, found " + std::to_string(betas_.size()));
      o_.beta1 = parse_number("--betas", betas_[0], 0, 1);
      o_.beta2 = parse_number("--betas", betas_[1], 0, 1);
    }
    for (std::string key : context.given) {
      std::replace(key.begin(), key.end(), '-', '_');
      o_.given.push_back(key == "no_shuffle" ? "shuffle" : key);
    }
  }

  void refuse_flags_with_adapter(const Context& context) const {
    if (o_.resume) return;
    OptionSet lora_options;
    LoraFlags().add_to(lora_options);
    std::string conflicts;
    for (const OptionSpec& spec : lora_options.specs())
      if (std::find(context.given.begin(), context.given.end(), spec.key()) != context.given.end())
        conflicts += (conflicts.empty() ? "" : ", ") + spec.label();
    if (!conflicts.empty())
      throw Error(ErrorKind::usage,
                  "--adapter brings its own configuration, which contradicts " + conflicts)
          .with_hint("leave these flags out, or train a new adapter without --adapter");
  }

  TrainReport train(Context& context) {
    ProgressLine progress(context.streams, "step", "",
                          !context.global.no_progress && !context.global.quiet);
    const auto on_event = [&](const TrainEvent& event) {
      if (event.eval_loss) {
        progress.clear();
        context.console.note("step " + std::to_string(event.step) + ": eval loss " +
                             number_text(*event.eval_loss));
      } else {
        progress.progress(static_cast<std::uint64_t>(event.step),
                          static_cast<std::uint64_t>(event.total_steps), loss_text(event));
      }
    };
    // Begins before LibTorch is loaded, which takes one thread a while. The last copy of the future
    // waits for the thread, so that the base outlives it on every way out of here.
    TrainOptions options = o_;
    options.base_lock = std::async(std::launch::async, [base = o_.base, threads = o_.threads] {
      return compute_base_lock(*base, threads);
    });
    return context.engine().train(options, on_event, context.sinks);
  }

  Outcome answer(const TrainReport& report, Context& context) const {
    JsonObject result{{"steps", report.steps},
                      {"tokens", report.tokens},
                      {"first_loss", report.first_loss},
                      {"last_loss", report.last_loss},
                      {"eval_loss", report.eval_loss ? Json(*report.eval_loss) : Json()},
                      {"tok_s", report.tokens_per_second},
                      {"peak_rss_bytes", report.peak_rss_bytes},
                      {"trainable_parameters", report.trainable_parameters},
                      {"total_parameters", report.total_parameters},
                      {"packing", json_of(report.packing)},
                      {"adapter", report.adapter.string()},
                      {"stopped_because", report.stopped_because}};
    if (o_.dry_run) {
      result["plan"] = report.plan;
      for (const JsonMember& member : report.plan)
        context.console.line(member.first + ": " +
                             printable(dump_json(member.second, JsonStyle{})));
      return {kDone, std::move(result), {}};
    }
    Console& console = context.console;
    console.line(plural(static_cast<std::uint64_t>(report.steps), "step") + ", " +
                 count_text(static_cast<std::uint64_t>(report.tokens)) + " tokens, loss " +
                 number_text(report.first_loss) + " -> " + number_text(report.last_loss) +
                 (report.eval_loss ? ", eval loss " + number_text(*report.eval_loss) : ""));
    console.line(count_text(static_cast<std::uint64_t>(report.trainable_parameters)) + " of " +
                 count_text(static_cast<std::uint64_t>(report.total_parameters)) +
                 " parameters trained, base unchanged; " + rate_text(report.tokens_per_second) +
                 ", peak memory " + bytes_text(static_cast<std::uint64_t>(report.peak_rss_bytes)));
    if (report.packing)
      console.line(count_text(static_cast<std::uint64_t>(report.packing->documents)) +
                   " documents in " +
                   plural(static_cast<std::uint64_t>(report.packing->rows), "row") + " of " +
                   std::to_string(report.packing->row_tokens) + " tokens, " +
                   number_text(100 * report.packing->fill, 3) + " % full");
    if (report.stopped_because == "interrupted") {
      console.note("interrupted; go on with: lora train --run-dir " + run_dir_ + " --resume");
      return {kInterrupted, std::move(result), {}};
    }
    if (!report.stopped_because.empty()) console.line("stopped: " + report.stopped_because);
    console.line("adapter " + report.adapter.string());
    return {kDone, std::move(result), {}};
  }

  TrainOptions o_;
  LoraFlags lora_;
  OpenCheckpointOptions base_options_;
  std::optional<std::string> base_, adapter_, compute_, device_, add_tokens_;
  std::vector<std::string> data_, eval_data_, betas_;
  std::string run_dir_;
  std::string checkpointing_ = "none", base_dtype_ = "native";
};

}  // namespace

Verb train_verb() {
  return {
      "train",
      "Core",
      "train an adapter on the frozen base",
      "Configures LoRA on the frozen base and trains it. The run directory holds the configuration "
      "(run.json), metrics.jsonl, checkpoints and the adapter. Ctrl-C writes a checkpoint and "
      "stops; "
      "--resume goes on and gives the same bytes as an uninterrupted run. The base's bytes are "
      "proven unchanged at the end.",
      "lora train --base base --data corpus.txt --run-dir run -r 8 --target-modules all-linear\n"
      "lora train --base base --data chat.jsonl --run-dir run --loss-on completion --epochs 2\n"
      "lora train --run-dir run --resume",
      []() -> std::unique_ptr<Command> { return std::make_unique<Train>(); }};
}

}  // namespace lora::cli
