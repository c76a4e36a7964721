#include "lora/ops/repair.h"

#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Repair final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("ADAPTER", adapter_, "damaged adapter directory, or its weights file");
    options.text("-o,--output", output_, "DIR", "adapter directory to write").is_required = true;
    options.text("--base", base_, "BASE", kBaseHelp);
    options.flag("-f,--force", options_.write.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check everything, write nothing");
    options.flag("--always", options_.write_unchanged,
                 "write DIR also when there is nothing to repair");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of float tensors (default: every tensor keeps its own)");
    options.group("What cannot be told from the files");
    options.each("--map", map_, "OLD=NEW",
                 "components of module paths and what replaces them; repeatable, an empty NEW "
                 "takes them off");
    options.text("--prefix", options_.prefix, "PREFIX", "take this off the front of the names");
    options.text("--adapter-config", adapter_config_, "FILE", "adapter_config.json to use");
    options.number("--alpha", options_.alpha, -1e9, 1e9, "lora_alpha that was lost");
    options.flag("--rslora", rslora_, "scale by alpha / sqrt(rank)");
    options.flag("--no-rslora", no_rslora_, "scale by alpha / rank");
    options.choice("--task", task_, {"causal-lm", "seq-cls", "token-cls", "regression", "none"},
                   "what the model is trained for");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    read_flags(context);
    std::optional<Checkpoint> base;
    if (base_) {
      base = open_base(*base_, base_options_, context);
      options_.base = &*base;
    }
    const RepairReport report = repair(options_);
    for (const std::string& note : report.notes) context.console.note(printable(note));
    print(report, context.console);
    return {0, result_of(report), report.findings};
  }

 private:
  void read_flags(Context& context) {
    options_.adapter = resolve_adapter(adapter_, context);
    options_.output = output_;
    options_.config = adapter_config_from(adapter_config_);
    if (rslora_ && no_rslora_)
      throw Error(ErrorKind::usage, "--rslora and --no-rslora exclude each other");
    if (rslora_ || no_rslora_) options_.use_rslora = rslora_;
    if (task_) options_.task = peft_task(*task_);
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    for (const std::string& entry : map_) {
      const std::size_t sign = entry.find('=');
      if (sign == std::string::npos || sign == 0)
        throw Error(ErrorKind::usage,
                    "cannot use \"" + entry + "\" for --map, expected OLD=NEW or OLD=");
      options_.map.emplace_back(entry.substr(0, sign), entry.substr(sign + 1));
    }
    options_.threads = context.threads();
    options_.sinks = context.sinks;
  }

  void print(const RepairReport& report, Console& console) const {
    if (report.changes.empty()) {
      console.line("nothing to repair in " + adapter_ +
                   (report.is_written ? "; wrote " + output_ : std::string()));
      return;
    }
    Table table({"what", "found", "written", "certain because"});
    for (const RepairChange& change : report.changes)
      table.row({change.what, printable(change.from), printable(change.to), printable(change.why)});
    for (const std::string& line : table.lines()) console.line(line);
    print_renamed(report, console);
    for (const std::string& name : report.left_behind)
      console.line("not copied: " + printable(name));
    console.line(std::string(report.is_written ? "wrote " : "would write ") + output_ + ": " +
                 plural(report.adapter.modules.size(), "LoRA module") + ", " +
                 bytes_text(report.bytes) + "; lora verify finds no error in it");
  }

  static void print_renamed(const RepairReport& report, Console& console) {
    constexpr std::size_t kShown = 3;
    for (std::size_t i = 0; i < std::min(kShown, report.renamed.size()); ++i)
      console.line("renamed " + printable(report.renamed[i].first) + " -> " +
                   printable(report.renamed[i].second));
    if (report.renamed.size() > kShown)
      console.line("and " + std::to_string(report.renamed.size() - kShown) +
                   " more, all listed with --json");
  }

  static JsonObject result_of(const RepairReport& report) {
    JsonArray changes, renamed, notes, carried, left_behind;
    for (const RepairChange& change : report.changes)
      changes.push_back(JsonObject{{"what", change.what},
                                   {"from", printable(change.from)},
                                   {"to", printable(change.to)},
                                   {"why", printable(change.why)}});
    for (const auto& [from, to] : report.renamed)
      renamed.push_back(JsonObject{{"from", printable(from)}, {"to", printable(to)}});
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    for (const std::string& name : report.carried) carried.emplace_back(printable(name));
    for (const std::string& name : report.left_behind) left_behind.emplace_back(printable(name));
    return {{"output", report.output.string()},
            {"written", report.is_written},
            {"changes", std::move(changes)},
            {"renamed", std::move(renamed)},
            {"modules", std::int64_t(report.adapter.modules.size())},
            {"bytes", report.bytes},
            {"carried", std::move(carried)},
            {"not_copied", std::move(left_behind)},
            {"notes", std::move(notes)}};
  }

  RepairOptions options_;
  OpenCheckpointOptions base_options_;
  std::string adapter_, output_;
  std::optional<std::string> base_, adapter_config_, dtype_, task_;
  std::vector<std::string> map_;
  bool rslora_ = false, no_rslora_ = false;
};

}  // namespace

Verb repair_verb() {
  return {
      "repair",
      "Change",
      "give a damaged adapter the names, configuration and container that PEFT loads",
      "Takes wrappers, adapter names and foreign prefixes off the names, finds renamed modules in "
      "the base, makes a lost adapter_config.json from the tensors, puts ranks, targets and "
      "patterns in agreement with them, rewrites pickles as safetensors, and leaves out empty "
      "files, second copies and weights that equal the base.\n\nOnly what is certain is changed, "
      "and every change is listed with its reason; the result has passed lora verify before it "
      "appears. What cannot be known is asked for (--alpha, --map), what is lost (NaN, empty or "
      "missing tensors) is refused.",
      "lora repair checkpoint-500 -o adapter\n"
      "lora repair old-adapter --base base -o adapter --dry-run\n"
      "lora repair weights.bin --alpha 16 --no-rslora -o adapter\n"
      "lora repair adapter --base base --map language_model=text_model -o repaired",
      []() -> std::unique_ptr<Command> { return std::make_unique<Repair>(); }};
}

}  // namespace lora::cli
