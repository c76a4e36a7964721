#include "lora/ops/diff.h"

#include <algorithm>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/output_report.h"
#include "lora/base/error.h"
#include "lora/ops/diff_outputs.h"

namespace lora::cli {
namespace {

JsonArray to_array(const std::vector<std::string>& items) {
  JsonArray array;
  for (const std::string& item : items) array.emplace_back(printable(item));
  return array;
}

// Degrees; what rounding leaves of a zero angle is shown as zero.
std::string angle_text(double degrees) { return number_text(degrees < 1e-6 ? 0 : degrees, 3); }

class Diff final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.positional("A", a_, "adapter, run directory or checkpoint");
    options.positional("B", b_, "the same kind as A");
    options.text("--base", base_, "BASE", kBaseHelp);
    options.flag("--outputs", outputs_,
                 "also compare outputs on the same input (adapters need --base)");
    options.flag("--all", all_, "list every module or tensor, not only the most different ones");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    const auto a = resolve_adapter(a_, context);
    const auto b = resolve_adapter(b_, context);
    const bool a_is_adapter = is_adapter_directory(a);
    if (a_is_adapter != is_adapter_directory(b)) {
      require_readable(a_is_adapter ? b : a, context);
      throw Error(ErrorKind::incompatible,
                  "cannot compare " + a_ + " with " + b_ + ": one is an adapter, the other is not");
    }
    if (outputs_ && a_is_adapter && !base_)
      throw Error(ErrorKind::usage, "--outputs needs --base: outputs are computed on a base");
    return a_is_adapter ? diff_adapters(a, b, context) : diff_checkpoints(context);
  }

 private:
  static constexpr std::size_t kShown = 12;

  static void require_readable(const std::filesystem::path& path, Context& context) {
    (void)open_checkpoint(path.string(), {}, context.huggingface_caches());
  }

  void list(Console& console, const std::string& title,
            const std::vector<std::string>& names) const {
    if (names.empty()) return;
    console.line(title + " (" + std::to_string(names.size()) + "):");
    const std::size_t shown = all_ ? names.size() : std::min(names.size(), kShown);
    for (std::size_t i = 0; i < shown; ++i) console.line("  " + printable(names[i]));
    if (shown < names.size())
      console.line("  and " + std::to_string(names.size() - shown) + " more (--all)");
  }

  Outcome diff_adapters(const std::filesystem::path& a, const std::filesystem::path& b,
                        Context& context) {
    const Adapter left = open_adapter(a);
    const Adapter right = open_adapter(b);
    AdapterDiffOptions options;
    options.threads = context.threads();
    options.sinks = context.sinks;
    const AdapterDiff result = diff(left, right, options);
    print(result, context.console);
    JsonObject document = result_of(result);
    if (outputs_) {
      const Checkpoint base = open_base(*base_, base_options_, context);
      add_outputs({&base, &left}, {&base, &right}, context, document);
    }
    return {result.is_equal() ? kDone : kAnswerIsNo, std::move(document), {}};
  }

  void print(const AdapterDiff& result, Console& console) const {
    if (result.is_equal()) {
      console.line("equal: " + plural(result.modules.size(), "module") +
                   ", same configuration, same bytes");
      return;
    }
    if (!result.fields.empty()) {
      console.line("configuration:");
      Table table({"field", "A", "B"});
      for (const FieldDifference& field : result.fields)
        table.row({"  " + field.field, printable(field.a.empty() ? "(absent)" : field.a),
                   printable(field.b.empty() ? "(absent)" : field.b)});
      const auto lines = table.lines();
      for (std::size_t i = 1; i < lines.size(); ++i) console.line(lines[i]);
    }
    list(console, "only in A", result.only_in_a);
    list(console, "only in B", result.only_in_b);
    list(console, "saved parameters that differ", result.changed_replacements);
    print_modules(result, console);
  }

  void print_modules(const AdapterDiff& result, Console& console) const {
    std::vector<const ModuleDifference*> changed;
    for (const ModuleDifference& module : result.modules)
      if (!module.has_equal_bytes) changed.push_back(&module);
    console.line(
        "updates: " + std::to_string(changed.size()) + " of " +
        std::to_string(result.modules.size()) + " common modules differ, |dA - dB| / |dA| = " +
        number_text(result.total_norm_a > 0 ? result.total_difference / result.total_norm_a : 0));
    if (changed.empty()) return;
    std::stable_sort(changed.begin(), changed.end(), [](const auto* x, const auto* y) {
      return x->distance.relative > y->distance.relative;
    });
    Table table({"  module", "rank", "scaling", "|dA|", "|dB|", "relative", "cosine", "angle"},
                {false, true, true, true, true, true, true, true});
    const std::size_t shown = all_ ? changed.size() : std::min(changed.size(), kShown);
    for (std::size_t i = 0; i < shown; ++i) {
      const ModuleDifference& module = *changed[i];
      const auto pair = [](const std::string& x, const std::string& y) {
        return x == y ? x : x + " / " + y;
      };
      table.row({"  " + printable(module.module_path),
                 pair(std::to_string(module.rank_a), std::to_string(module.rank_b)),
                 pair(number_text(module.scaling_a), number_text(module.scaling_b)),
                 number_text(module.distance.norm_a), number_text(module.distance.norm_b),
                 number_text(module.distance.relative), number_text(module.distance.cosine, 6),
                 angle_text(module.distance.largest_angle)});
    }
    for (const std::string& line : table.lines()) console.line(line);
    if (shown < changed.size())
      console.line("  and " + std::to_string(changed.size() - shown) + " more (--all)");
  }

  static void add_outputs(const ModelSide& a, const ModelSide& b, Context& context,
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
  }

  static JsonObject result_of(const AdapterDiff& result) {
    JsonArray fields, modules;
    for (const FieldDifference& field : result.fields)
      fields.push_back(
          JsonObject{{"field", field.field},
                     {"a", field.a.empty() ? Json() : parse_json(field.a, field.field)},
                     {"b", field.b.empty() ? Json() : parse_json(field.b, field.field)}});
    for (const ModuleDifference& module : result.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"rank_a", module.rank_a},
                                   {"rank_b", module.rank_b},
                                   {"scaling_a", module.scaling_a},
                                   {"scaling_b", module.scaling_b},
                                   {"norm_a", module.distance.norm_a},
                                   {"norm_b", module.distance.norm_b},
                                   {"difference", module.distance.difference},
                                   {"relative", module.distance.relative},
                                   {"cosine", module.distance.cosine},
                                   {"largest_angle", module.distance.largest_angle},
                                   {"equal", module.has_equal_bytes}});
    return {{"kind", "adapters"},
            {"equal", result.is_equal()},
            {"fields", std::move(fields)},
            {"only_in_a", to_array(result.only_in_a)},
            {"only_in_b", to_array(result.only_in_b)},
            {"changed_parameters", to_array(result.changed_replacements)},
            {"total_difference", result.total_difference},
            {"total_norm_a", result.total_norm_a},
            {"modules", std::move(modules)}};
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
    const CheckpointDiff result = diff(left, right, options);
    progress.clear();
    print(result, context.console);
    JsonObject document = result_of(result);
    if (outputs_) add_outputs({&left, nullptr}, {&right, nullptr}, context, document);
    return {result.is_equal() ? kDone : kAnswerIsNo, std::move(document), {}};
  }

  void print(const CheckpointDiff& result, Console& console) const {
    if (result.is_equal()) {
      console.line("equal: " + plural(static_cast<std::uint64_t>(result.equal), "tensor") +
                   ", same names, dtypes, shapes and bytes");
      return;
    }
    list(console, "only in A", result.only_in_a);
    list(console, "only in B", result.only_in_b);
    console.line(plural(result.changed.size(), "tensor") + " differ, " +
                 count_text(static_cast<std::uint64_t>(result.equal)) + " equal");
    if (result.changed.empty()) return;
    Table table({"  tensor", "what", "A", "B", "max |a-b|", "relative", "changed"},
                {false, false, false, false, true, true, true});
    const std::size_t shown =
        all_ ? result.changed.size() : std::min(result.changed.size(), kShown);
    for (std::size_t i = 0; i < shown; ++i) {
      const TensorDifference& tensor = result.changed[i];
      const bool has_values = tensor.what != "shape";
      table.row({"  " + printable(tensor.name), tensor.what, tensor.a, tensor.b,
                 has_values ? number_text(tensor.max_absolute) : "",
                 has_values ? number_text(tensor.relative) : "",
                 has_values ? count_text(static_cast<std::uint64_t>(tensor.changed_elements)) +
                                  " of " + count_text(static_cast<std::uint64_t>(tensor.elements))
                            : ""});
    }
    for (const std::string& line : table.lines()) console.line(line);
    if (shown < result.changed.size())
      console.line("  and " + std::to_string(result.changed.size() - shown) + " more (--all)");
  }

  static JsonObject result_of(const CheckpointDiff& result) {
    JsonArray changed;
    for (const TensorDifference& tensor : result.changed)
      changed.push_back(JsonObject{{"tensor", printable(tensor.name)},
                                   {"what", tensor.what},
                                   {"a", tensor.a},
                                   {"b", tensor.b},
                                   {"max_absolute", tensor.max_absolute},
                                   {"relative", tensor.relative},
                                   {"changed_elements", tensor.changed_elements},
                                   {"elements", tensor.elements}});
    return {{"kind", "checkpoints"},
            {"equal", result.is_equal()},
            {"only_in_a", to_array(result.only_in_a)},
            {"only_in_b", to_array(result.only_in_b)},
            {"changed", std::move(changed)},
            {"equal_tensors", result.equal}};
  }

  std::string a_, b_;
  std::optional<std::string> base_;
  OpenCheckpointOptions base_options_;
  bool outputs_ = false, all_ = false;
};

}  // namespace

Verb diff_verb() {
  return {
      "diff",
      "Core",
      "say exactly how two adapters or two checkpoints differ",
      "Two adapters: configuration, keys, and for each module the exact distance and cosine of the "
      "applied updates, whatever their ranks, scalings and factorisations. Two checkpoints: "
      "tensors "
      "added, removed and changed, with the largest and the relative difference. Exit code 1 when "
      "they differ.",
      "lora diff adapter-v1 adapter-v2\n"
      "lora diff adapter-v1 adapter-v2 --base base --outputs\n"
      "lora diff base finetuned --json",
      []() -> std::unique_ptr<Command> { return std::make_unique<Diff>(); }};
}

}  // namespace lora::cli
