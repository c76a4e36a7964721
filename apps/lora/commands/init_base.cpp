#include "lora/ops/init_base.h"

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class InitBase final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Source (exactly one)");
    OptionSpec& preset = options.text("--preset", preset_, "NAME", "");
    std::string names;
    for (const auto name : init_base_presets())
      names += (names.empty() ? "" : ", ") + std::string(name);
    preset.help = "random weights of a small architecture: " + names;
    options.text("--arch", arch_, "FILE", "random weights for this config.json");
    options.text("--from", from_, "BASE",
                 "import: directory, .safetensors, .pth, .pt, .bin or .gguf file, or a cached "
                 "Hugging Face id");
    options.group("Output");
    options.text("-o,--output", output_, "DIR", "directory to write").is_required = true;
    options.flag("-f,--force", options_.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check everything, write nothing");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16", "f64"},
                   "dtype of float weights (default: as the source or the architecture says)");
    options.choice("--container", container_, {"safetensors", "pth"}, "container of the weights");
    options.size("--max-shard-size", options_.max_shard_size,
                 "start a new safetensors file past this size (default: 50GB)");
    options.group("Weights and architecture");
    options.seed("--seed", options_.seed, "seed of random weights");
    options.list("--hidden-sizes", sizes_, "N,N,...",
                 "sizes of the preset mlp, input to output (default: 10,20,2)");
    options.choice("--activation", options_.activation,
                   {"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "identity"},
                   "between the layers of an mlp (default: relu)");
    options.choice("--final-activation", options_.final_activation,
                   {"none", "log_softmax", "softmax", "sigmoid"},
                   "after the last layer of an mlp (default: none)");
  }

  Outcome run(Context& context) override {
    const int sources = int{preset_.has_value()} + int{arch_.has_value()} + int{from_.has_value()};
    if (sources != 1)
      throw Error(ErrorKind::usage,
                  std::string("expected exactly one of --preset, --arch and --from, ") +
                      (sources == 0 ? "found none" : "found several"));
    options_.preset = preset_;
    options_.arch = arch_;
    options_.from = from_;
    options_.output = output_;
    options_.container = container_ == "pth" ? WeightContainer::pth : WeightContainer::safetensors;
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    for (const std::string& size : sizes_)
      options_.hidden_sizes.push_back(parse_integer("--hidden-sizes", size, 1));
    options_.threads = context.threads();
    options_.hf_cache = context.huggingface_caches();
    ProgressLine progress(context.streams, "init-base", "B",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    const InitBaseReport report = init_base(options_, sinks);
    progress.clear();
    for (const std::string& note : report.notes) context.console.note(note);
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  void print(const InitBaseReport& report, Console& console) const {
    console.line((options_.dry_run ? "would write " : "wrote ") + report.output.string() + ": " +
                 report.model_type + ", " +
                 plural(static_cast<std::uint64_t>(report.parameters), "parameter") + " in " +
                 plural(static_cast<std::uint64_t>(report.tensors), "tensor") + ", " +
                 report.dtype + ", " + bytes_text(report.weight_bytes));
    for (const WrittenFile& file : report.files)
      console.line("  " + file.name + (file.bytes ? "  " + bytes_text(file.bytes) : ""));
    if (report.root) console.line("base root " + report.root->hex());
  }

  static JsonObject result_of(const InitBaseReport& report) {
    JsonArray files;
    for (const WrittenFile& file : report.files)
      files.push_back(JsonObject{{"name", file.name}, {"bytes", file.bytes}});
    JsonArray notes;
    for (const std::string& note : report.notes) notes.emplace_back(note);
    return {{"output", report.output.string()},
            {"model_type", report.model_type},
            {"tensors", report.tensors},
            {"parameters", report.parameters},
            {"weight_bytes", report.weight_bytes},
            {"dtype", report.dtype},
            {"root", report.root ? Json(report.root->hex()) : Json()},
            {"files", std::move(files)},
            {"notes", std::move(notes)}};
  }

  InitBaseOptions options_;
  std::optional<std::string> preset_, arch_, from_, dtype_;
  std::string output_;
  std::string container_ = "safetensors";
  std::vector<std::string> sizes_;
};

}  // namespace

Verb init_base_verb() {
  return {
      "init-base",
      "Core",
      "make or import base weights as a checkpoint of their own",
      "Writes a base checkpoint directory: config.json, weights, tokenizer files where the source "
      "has them, and base.lock.json with a digest of every tensor. The root digest identifies the "
      "weights whatever their container; train records it, verify checks it.",
      "lora init-base --preset mlp -o base\n"
      "lora init-base --from pytorch_model.bin -o base --dtype bf16\n"
      "lora init-base --arch config.json --seed 7 -o base",
      []() -> std::unique_ptr<Command> { return std::make_unique<InitBase>(); }};
}

}  // namespace lora::cli
