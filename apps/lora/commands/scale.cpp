#include "lora/ops/scale.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/derived_flags.h"

namespace lora::cli {
namespace {

class Scale final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("ADAPTER", adapter_, "adapter or run directory, or a weights file");
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    flags_.add_to(options, "dtype of float tensors (default: every tensor keeps its own)");
    options.flag("--modules", all_, "list every module");
    options.group("What to do: one of these");
    options.number("--set", options_.set, -1e9, 1e9, "scaling of every module");
    options.number("--mul", options_.times, -1e9, 1e9, "factor on the scaling of every module");
    options.flag("--fold", options_.fold,
                 "scaling 1, the old one multiplied into B; the update stays");
    options.number("--unfold", options_.unfold, -1e9, 1e9,
                   "this scaling, B divided by it; the update stays");
  }

  Outcome run(Context& context) override {
    options_.output = flags_.options(context);
    const Adapter adapter =
        open_adapter(resolve_adapter(adapter_, context), adapter_config_from(adapter_config_));
    options_.adapter = &adapter;
    const ScaleReport report = scale(options_);
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  void print(const ScaleReport& report, Console& console) const {
    constexpr std::size_t kFew = 6;
    const std::size_t shown = all_ ? report.modules.size() : std::min(kFew, report.modules.size());
    Table table({"module", "rank", "alpha", "scaling", "new alpha", "new scaling"},
                {false, true, true, true, true, true});
    for (std::size_t i = 0; i < shown; ++i) {
      const ScaledModule& module = report.modules[i];
      table.row({printable(module.module_path), std::to_string(module.rank),
                 number_text(module.alpha_before, 6), number_text(module.scaling_before, 6),
                 number_text(module.alpha_after, 6), number_text(module.scaling_after, 6)});
    }
    for (const std::string& line : table.lines()) console.line(line);
    if (shown < report.modules.size())
      console.line("and " + std::to_string(report.modules.size() - shown) +
                   " more modules (--modules)");
    if (options_.fold || options_.unfold)
      console.line(report.rounding == 0
                       ? "the updates are the same, every product was exact"
                       : "the updates are the same to a relative " +
                             number_text(report.rounding, 2) + ", the rounding of B");
    print_result(report.result, console);
  }

  static JsonObject result_of(const ScaleReport& report) {
    JsonArray modules;
    for (const ScaledModule& module : report.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"rank", module.rank},
                                   {"alpha_before", module.alpha_before},
                                   {"scaling_before", module.scaling_before},
                                   {"alpha", module.alpha_after},
                                   {"scaling", module.scaling_after}});
    JsonObject result;
    add_result(report.result, result);
    result["modules"] = std::move(modules);
    result["rounding"] = report.rounding;
    return result;
  }

  ScaleOptions options_;
  DerivedFlags flags_;
  std::string adapter_;
  std::optional<std::string> adapter_config_;
  bool all_ = false;
};

}  // namespace

Verb scale_verb() {
  return {
      "scale",
      "Change",
      "change how strongly an adapter is applied, or where its scaling is kept",
      "The update of a module is its scaling (lora_alpha / r, or / sqrt(r) with rsLoRA) times "
      "B A. --set and --mul change the scaling and leave every tensor. --fold multiplies it into B "
      "and leaves 1, for programs that forget it; --unfold takes a scaling out of B. Neither "
      "changes the update.",
      "lora scale adapter --mul 0.5 -o weaker\n"
      "lora scale adapter --set 1 -o plain\n"
      "lora scale adapter --fold -o folded\n"
      "lora inspect adapter --scale",
      []() -> std::unique_ptr<Command> { return std::make_unique<Scale>(); }};
}

}  // namespace lora::cli
