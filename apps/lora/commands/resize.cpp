#include "lora/ops/resize.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/derived_flags.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

class Resize final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("ADAPTER", adapter_, "adapter or run directory, or a weights file");
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    flags_.add_to(options, "dtype of float tensors (default: F32 where a factor is new)");
    options.flag("--modules", all_, "list every module");
    options.group("Ranks: one of these, or --rank with --rank-pattern");
    options.integer("--rank", options_.rank, 1, "rank of every module");
    options.each("--rank-pattern", pattern_, "PATTERN=N",
                 "rank of the modules that match, as in PEFT's rank_pattern; others keep theirs");
    options.number("--energy", options_.energy, 0, 1,
                   "share of the squared norm that every module keeps, at its least rank");
    options.text("--budget", budget_, "SIZE",
                 "largest weights file; ranks go where they keep most of all updates");
  }

  Outcome run(Context& context) override {
    read_pattern();
    if (budget_) options_.budget = parse_size("--budget", *budget_);
    options_.output = flags_.options(context);
    const Adapter adapter =
        open_adapter(resolve_adapter(adapter_, context), adapter_config_from(adapter_config_));
    options_.adapter = &adapter;
    const ResizeReport report = resize(options_);
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  void read_pattern() {
    for (const std::string& item : pattern_) {
      const std::size_t equals = item.rfind('=');
      if (equals == std::string::npos || equals == 0)
        throw Error(ErrorKind::usage,
                    "cannot use \"" + item + "\" for --rank-pattern, expected PATTERN=N");
      options_.rank_pattern.emplace_back(
          item.substr(0, equals), parse_integer("--rank-pattern", item.substr(equals + 1), 1));
    }
  }

  // Whoever loses most comes first.
  void print(const ResizeReport& report, Console& console) const {
    constexpr std::size_t kFew = 6;
    std::vector<const ResizedModule*> modules;
    for (const ResizedModule& module : report.modules) modules.push_back(&module);
    if (!all_)
      std::stable_sort(modules.begin(), modules.end(),
                       [](const auto* x, const auto* y) { return x->kept < y->kept; });
    const std::size_t shown = all_ ? modules.size() : std::min(kFew, modules.size());
    Table table({"module", "rank", "new", "norm", "energy kept", "error"},
                {false, true, true, true, true, true});
    for (std::size_t i = 0; i < shown; ++i) {
      const ResizedModule& module = *modules[i];
      table.row({printable(module.module_path), std::to_string(module.rank_before),
                 std::to_string(module.rank_after), number_text(module.norm),
                 percent_text(module.kept, 5), number_text(module.error)});
    }
    for (const std::string& line : table.lines()) console.line(line);
    if (shown < modules.size())
      console.line("and " + std::to_string(modules.size() - shown) + " more modules (--modules)");
    console.line("of the energy of all updates " + percent_text(report.kept, 5) + " is kept; " +
                 bytes_text(report.bytes_before) + " of tensors become " +
                 bytes_text(report.result.bytes));
    print_result(report.result, console);
  }

  static JsonObject result_of(const ResizeReport& report) {
    JsonArray modules;
    for (const ResizedModule& module : report.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"rank_before", module.rank_before},
                                   {"rank", module.rank_after},
                                   {"norm", module.norm},
                                   {"energy_kept", module.kept},
                                   {"error", module.error}});
    JsonObject result;
    add_result(report.result, result);
    result["modules"] = std::move(modules);
    result["energy_kept"] = report.kept;
    result["bytes_before"] = report.bytes_before;
    result["file_bytes"] = report.file_bytes;
    return result;
  }

  ResizeOptions options_;
  DerivedFlags flags_;
  std::string adapter_;
  std::optional<std::string> adapter_config_, budget_;
  std::vector<std::string> pattern_;
  bool all_ = false;
};

}  // namespace

Verb resize_verb() {
  return {
      "resize",
      "Change",
      "give an adapter other ranks, losing as little of its updates as possible",
      "A smaller rank keeps the largest singular values of each update, computed in double "
      "precision from the factors: no other factors of that rank come closer. A larger one pads "
      "with zeros and keeps the update bit for bit. --energy chooses each rank by what it keeps, "
      "--budget all of them together. Scalings stay; lora_alpha and the patterns follow the "
      "ranks.\n\nThe report says by module what share of the squared norm is kept.",
      "lora resize adapter --rank 16 -o small\n"
      "lora resize adapter --energy 0.95 -o small\n"
      "lora resize adapter --budget 20MB --dtype bf16 -o small\n"
      "lora resize adapter --rank 8 --rank-pattern down_proj=32 -o small",
      []() -> std::unique_ptr<Command> { return std::make_unique<Resize>(); }};
}

}  // namespace lora::cli
