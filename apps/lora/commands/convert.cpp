#include "cli/exit_codes.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/derived_flags.h"
#include "lora/ops/make_plain.h"

namespace lora::cli {
namespace {

class Convert final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("ADAPTER", adapter_, "trained adapter or run directory");
    options.text("--init-adapter", initial_, "DIR",
                 "the adapter as it was before training, with the first factors");
    options.text("--base", base_, "BASE",
                 "original base, in which the first factors are found again (PiSSA, OLoRA)");
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    options.flag("--any-base", options_.any_base, "convert although another base is recorded");
    flags_.add_to(options, "dtype of float tensors (default: as wide as what they come from)");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    options_.output = flags_.options(context);
    options_.sinks = context.sinks;
    const Adapter adapter =
        open_adapter(resolve_adapter(adapter_, context), adapter_config_from(adapter_config_));
    options_.adapter = &adapter;
    std::optional<Adapter> initial;
    if (initial_) options_.initial = &initial.emplace(open_adapter(*initial_));
    std::optional<Checkpoint> base;
    if (base_) options_.base = &base.emplace(open_base(*base_, base_options_, context));
    const MakePlainReport report = make_plain(options_);
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  static void print(const MakePlainReport& report, Console& console) {
    std::size_t doubled = 0;
    for (const PlainModule& module : report.modules)
      doubled += module.rank_after != module.rank_before ? 1 : 0;
    console.line(report.init + " in " + plural(doubled, "module") +
                 ": twice the rank at the same scaling, for the base as it was" +
                 (doubled == report.modules.size()
                      ? std::string()
                      : "; " + plural(report.modules.size() - doubled, "module") +
                            " started without changing the base and stay"));
    print_result(report.result, console);
  }

  static JsonObject result_of(const MakePlainReport& report) {
    JsonArray modules;
    for (const PlainModule& module : report.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"rank_before", module.rank_before},
                                   {"rank", module.rank_after}});
    JsonObject result;
    add_result(report.result, result);
    result["init"] = report.init;
    result["beginning_cosine"] = report.beginning_cosine ? Json(*report.beginning_cosine) : Json();
    result["modules"] = std::move(modules);
    return result;
  }

  MakePlainOptions options_;
  DerivedFlags flags_;
  OpenCheckpointOptions base_options_;
  std::string adapter_;
  std::optional<std::string> initial_, base_, adapter_config_;
};

}  // namespace

Verb convert_verb() {
  return {
      "convert",
      "Change",
      "make a PiSSA, OLoRA, CorDA or LoRA-GA adapter a plain LoRA for the original base",
      "These initialisations take their first factors B0 A0 out of the base, so that the adapter "
      "fits only the base without them. The plain adapter adds B A - B0 A0 to the base as it was: "
      "twice the rank, the same scaling, as PEFT's conversion writes it. The first factors come "
      "from the adapter as it was before training (--init-adapter), or for PiSSA and OLoRA from "
      "the original base (--base).\n\nlora train writes its result this way already; lora resize "
      "brings the rank down again.",
      "lora convert pissa-adapter --init-adapter pissa-init -o plain\n"
      "lora convert pissa-adapter --base base -o plain\n"
      "lora resize plain --energy 0.99 -o small",
      []() -> std::unique_ptr<Command> { return std::make_unique<Convert>(); }};
}

}  // namespace lora::cli
