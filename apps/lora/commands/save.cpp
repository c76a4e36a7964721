#include "lora/ops/save.h"

#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Save final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("SOURCE", source_,
                       "run directory, checkpoint of a run, adapter, or a state dict holding LoRA "
                       "weights (.safetensors, .pth, .pt, .bin)");
    options.text("-o,--output", output_, "DIR", "adapter directory to write").is_required = true;
    options.text("--base", base_, "BASE", kBaseHelp);
    options.flag("-f,--force", force_, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check everything, write nothing");
    options.flag("--bare", options_.bare,
                 "write PEFT's two files only: no lora_manifest.json, no probe.safetensors");
    options.text("--adapter-name", adapter_name_, "NAME",
                 "which of several adapters; all: each one, default in DIR itself, the others in "
                 "folders of their names");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of float tensors (default: every tensor keeps its own)");
    options.flag("--model-card", options_.model_card, "write README.md as PEFT adds it");
    options.group("What a state dict does not say");
    options.text("--adapter-config", adapter_config_, "FILE",
                 "adapter_config.json to use; of several adapters NAME=FILE,NAME=FILE");
    options.number("--alpha", options_.flags.alpha, -1e9, 1e9, "lora_alpha");
    options.flag("--rslora", rslora_, "scale by alpha / sqrt(rank)");
    options.flag("--no-rslora", no_rslora_, "scale by alpha / rank");
    options.choice("--task", task_, {"causal-lm", "seq-cls", "token-cls", "regression", "none"},
                   "what the model is trained for");
    options.text("--base-name", options_.flags.base_name, "NAME",
                 "name recorded as base_model_name_or_path");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    options_.source = resolve_adapter(source_, context);
    options_.output = output_;
    if (adapter_config_) read_configs();
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    if (rslora_ && no_rslora_)
      throw Error(ErrorKind::usage, "--rslora and --no-rslora exclude each other");
    if (rslora_ || no_rslora_) options_.flags.use_rslora = rslora_;
    if (task_) options_.flags.task = peft_task(*task_);
    if (adapter_config_ && (options_.flags.alpha || options_.flags.use_rslora || task_))
      throw Error(
          ErrorKind::usage,
          "--alpha, --rslora and --task contradict --adapter-config, which says all of them");
    options_.write.force = force_;
    options_.threads = context.threads();
    std::optional<Checkpoint> base;
    if (base_) {
      base = open_base(*base_, base_options_, context);
      options_.base = &*base;
      options_.engine = [&context]() -> Engine& { return context.engine(); };
    }
    ProgressLine progress(context.streams, "save", "B",
                          !context.global.no_progress && !context.global.quiet);
    options_.sinks = context.sinks;
    options_.sinks.progress = &progress;
    std::vector<SaveReport> reports;
    const bool is_all = adapter_name_ == "all";
    if (is_all) {
      reports = save_all(options_);
    } else {
      options_.adapter_name = adapter_name_;
      reports.push_back(save(options_));
    }
    progress.clear();
    JsonArray results;
    for (const SaveReport& report : reports) {
      for (const std::string& note : report.notes) context.console.note(note);
      print(report, context.console);
      results.push_back(result_of(report));
    }
    if (!is_all) return {0, *results.front().as_object(), {}};
    return {0, JsonObject{{"output", output_}, {"adapters", std::move(results)}}, {}};
  }

 private:
  // FILE, or NAME=FILE for single adapters.
  void read_configs() {
    if (adapter_config_->find('=') == std::string::npos ||
        std::filesystem::exists(*adapter_config_)) {
      options_.config = read_adapter_config(*adapter_config_);
      return;
    }
    std::string rest = *adapter_config_;
    while (!rest.empty()) {
      const std::size_t comma = rest.find(',');
      const std::string entry = rest.substr(0, comma);
      rest = comma == std::string::npos ? std::string() : rest.substr(comma + 1);
      const std::size_t sign = entry.find('=');
      if (sign == std::string::npos || sign == 0 || sign + 1 == entry.size())
        throw Error(ErrorKind::usage, "cannot use \"" + entry +
                                          "\" for --adapter-config, expected FILE or NAME=FILE");
      options_.configs[entry.substr(0, sign)] = read_adapter_config(entry.substr(sign + 1));
    }
  }

  void print(const SaveReport& report, Console& console) const {
    const Adapter& adapter = report.adapter;
    console.line((options_.dry_run ? "would write " : "wrote ") + report.output.string() + ": " +
                 (report.adapter_name == "default" ? "" : report.adapter_name + ", ") +
                 plural(adapter.modules.size(), "LoRA module") + ", " +
                 plural(adapter.tensors.size(), "tensor") + ", " + bytes_text(report.bytes));
    if (!adapter.replacements.empty())
      console.line("with " + plural(adapter.replacements.size(), "parameter") +
                   " of saved modules and biases");
    if (!report.unwrapped.empty()) {
      std::string wrappers;
      for (const std::string& wrapper : report.unwrapped)
        wrappers += (wrappers.empty() ? "" : ", ") + wrapper;
      console.line("unwrapped: " + wrappers);
    }
    if (!report.left_out.empty())
      console.line("left out: " + plural(report.left_out.size(), "tensor") +
                   " that are no part of the adapter (" + bytes_text(report.left_out_bytes) + ")");
    if (report.base_root) console.line("base root " + *report.base_root);
  }

  static JsonObject result_of(const SaveReport& report) {
    JsonArray left_out, unwrapped, notes;
    for (const std::string& name : report.left_out) left_out.emplace_back(printable(name));
    for (const std::string& name : report.unwrapped) unwrapped.emplace_back(name);
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    return {{"output", report.output.string()},
            {"adapter_name", printable(report.adapter_name)},
            {"modules", std::int64_t(report.adapter.modules.size())},
            {"tensors", std::int64_t(report.adapter.tensors.size())},
            {"saved_parameters", std::int64_t(report.adapter.replacements.size())},
            {"bytes", report.bytes},
            {"left_out", std::move(left_out)},
            {"left_out_bytes", report.left_out_bytes},
            {"unwrapped", std::move(unwrapped)},
            {"base_root", report.base_root ? Json(*report.base_root) : Json()},
            {"has_probe", report.has_probe},
            {"notes", std::move(notes)}};
  }

  SaveOptions options_;
  OpenCheckpointOptions base_options_;
  std::string source_, output_;
  std::optional<std::string> base_, adapter_config_, adapter_name_, dtype_, task_;
  bool force_ = false, rslora_ = false, no_rslora_ = false;
};

}  // namespace

Verb save_verb() {
  return {
      "save",
      "Core",
      "unwrap whatever holds LoRA weights and write only the adapter",
      "Reads a run, a checkpoint, an adapter or any state dict, strips wrappers and adapter names "
      "from the keys, leaves the base's weights out, and writes adapter_config.json and "
      "adapter_model.safetensors as PEFT does.\n\nA state dict holds no alpha: it must come from "
      "--adapter-config or from --alpha, --rslora or --no-rslora, and --task. Several adapters in "
      "one "
      "source are told apart by --adapter-name. With --base the fit "
      "is checked, and identity and outputs are recorded for lora verify.",
      "lora save runs/chat -o adapter --base base\n"
      "lora save pytorch_model.bin --adapter-config adapter_config.json -o adapter\n"
      "lora save model.pth --adapter-name all --adapter-config "
      "default=a/adapter_config.json,second=b/adapter_config.json -o adapters\n"
      "lora save state.pth --alpha 16 --no-rslora --task causal-lm -o adapter",
      []() -> std::unique_ptr<Command> { return std::make_unique<Save>(); }};
}

}  // namespace lora::cli
