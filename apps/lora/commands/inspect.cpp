#include "lora/ops/inspect.h"

#include <algorithm>

#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/history_text.h"
#include "html/inspect_page.h"
#include "lora/base/atomic_write.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

template <typename T, typename Format>
std::string joined(const std::vector<T>& values, Format&& format) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + format(value);
  return text;
}

std::uint64_t as_count(std::int64_t value) { return static_cast<std::uint64_t>(value); }

class Inspect final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.rest("PATH", paths_, "adapters, run directories, checkpoints or single tensor files");
    options.text("--adapter-config", adapter_config_, "FILE",
                 "for an adapter's weights file given alone");
    options.text("--html", html_, "FILE",
                 "also write a page with heat maps and singular values (for one PATH)");
    options.flag("-f,--force", force_, "replace an existing page");
    options.flag("--scale", scale_, "list rank, alpha and scaling of every module");
    options.flag("--tensors", tensors_, "list every tensor with dtype, shape and statistics");
  }

  Outcome run(Context& context) override {
    if (html_) {
      if (paths_.size() != 1)
        throw Error(ErrorKind::usage,
                    "--html describes one PATH, found " + std::to_string(paths_.size()));
      require_absent(*html_, force_);
    }
    JsonArray reports;
    bool first = true;
    for (const std::string& path : paths_) {
      InspectOptions options;
      options.config = adapter_config_from(adapter_config_);
      options.path = resolve_adapter(path, context);
      options.threads = context.threads();
      const InspectReport report = inspect(options);
      if (!first) context.console.line();
      first = false;
      print(report, context.console);
      if (html_) write_file_atomically(*html_, inspect_page(report), WriteOptions{force_, nullptr});
      reports.push_back(result_of(report));
    }
    return {0, JsonObject{{"files", std::move(reports)}}, {}};
  }

 private:
  void print(const InspectReport& report, Console& console) const {
    console.line(console.toned(Tone::bold, report.path.string()) + ": " + report.kind + ", " +
                 report.container +
                 (report.model_type.empty() ? "" : ", " + printable(report.model_type)));
    std::string dtypes;
    for (const auto& [dtype, share] : report.dtypes)
      dtypes += (dtypes.empty() ? "" : ", ") + dtype + " " + bytes_text(share.bytes);
    console.line("  " + plural(as_count(report.tensors), "tensor") + ", " +
                 plural(as_count(report.elements), "parameter") + ", " + bytes_text(report.bytes) +
                 (dtypes.empty() ? "" : " (" + dtypes + ")"));
    if (report.base_root)
      console.line(std::string("  ") + (report.adapter ? "recorded base root " : "base root ") +
                   *report.base_root);
    if (report.adapter) print_adapter(report, console);
    if (scale_ && report.adapter) print_scale(*report.adapter, console);
    if (!report.history.empty()) console.line("  history:");
    for (const std::string& line : history_lines(report.history, "    ")) console.line(line);
    for (const auto& [alias, name] : report.aliases)
      console.line("  " + printable(alias) + " shares the bytes of " + printable(name));
    for (const std::string& note : report.notes) console.line("  note: " + printable(note));
    if (tensors_) print_tensors(report, console);
  }

  static void print_adapter(const InspectReport& report, Console& console) {
    const AdapterConfig& config = report.adapter->config;
    std::string traits =
        "  r " + std::to_string(config.rank) + ", alpha " + number_text(config.alpha);
    if (config.use_rslora) traits += ", rsLoRA";
    if (config.use_dora) traits += ", DoRA";
    if (config.dropout > 0) traits += ", dropout " + number_text(config.dropout);
    if (config.bias != BiasMode::none)
      traits += config.bias == BiasMode::all ? ", bias all" : ", bias lora_only";
    if (config.task_type) traits += ", " + printable(*config.task_type);
    if (config.peft_version) traits += ", PEFT " + printable(*config.peft_version);
    console.line(traits);
    console.line("  base " + printable(config.base_model_name_or_path.value_or("(not named)")) +
                 (config.revision ? " at " + printable(*config.revision) : ""));
    Table table({"  modules", "count", "rank", "scaling", "parameters", "|dW| mean", "largest",
                 "eff. rank"},
                {false, true, true, true, true, true, true, true});
    for (const ModuleGroup& group : report.groups)
      table.row({"  " + printable(group.name), std::to_string(group.count),
                 joined(group.ranks, [](std::int64_t rank) { return std::to_string(rank); }),
                 joined(group.scalings, [](double scaling) { return number_text(scaling); }),
                 count_text(as_count(group.parameters)), number_text(group.mean_norm),
                 number_text(group.largest_norm), number_text(group.mean_effective_rank, 3)});
    for (const std::string& line : table.lines()) console.line(line);
    if (!report.adapter->replacements.empty()) {
      console.line("  saved parameters:");
      for (const auto& [name, tensor] : report.adapter->replacements)
        console.line("    " + printable(name) + "  " + std::string(to_string(tensor.dtype)) + " " +
                     shape_to_string(tensor.shape));
    }
  }

  // Where each scaling comes from: alpha over the rank or its root, and what PEFT multiplies.
  static void print_scale(const Adapter& adapter, Console& console) {
    Table table({"  module", "rank", "alpha", "scaling", ""}, {false, true, true, true, false});
    for (const LoraModule& module : adapter.modules)
      table.row({"  " + printable(module.module_path), std::to_string(module.rank),
                 number_text(module.alpha, 6), number_text(module.scaling, 6),
                 std::string(adapter.config.use_rslora ? "alpha / sqrt(rank)" : "alpha / rank") +
                     (module.times == 1 ? "" : ", added " + number_text(module.times) + " times")});
    for (const std::string& line : table.lines()) console.line(line);
  }

  static JsonArray scales_of(const Adapter& adapter) {
    JsonArray scales;
    for (const LoraModule& module : adapter.modules)
      scales.push_back(JsonObject{{"module", printable(module.module_path)},
                                  {"rank", module.rank},
                                  {"alpha", module.alpha},
                                  {"scaling", module.scaling},
                                  {"times", module.times}});
    return scales;
  }

  static void print_tensors(const InspectReport& report, Console& console) {
    Table table({"  tensor", "dtype", "shape", "bytes", "mean", "std", "min", "max"},
                {false, false, false, true, true, true, true, true});
    for (const auto& [name, tensor] : report.listed) {
      std::vector<std::string> cells{"  " + printable(name), std::string(to_string(tensor.dtype)),
                                     shape_to_string(tensor.shape),
                                     count_text(tensor.bytes.size())};
      if (is_float(tensor.dtype)) {
        const TensorStatistics statistics = statistics_of(tensor);
        for (const double value : {statistics.mean, statistics.std, statistics.min, statistics.max})
          cells.push_back(number_text(value));
      } else {
        cells.resize(8);
      }
      table.row(std::move(cells));
    }
    for (const std::string& line : table.lines()) console.line(line);
  }

  Json result_of(const InspectReport& report) const {
    JsonObject dtypes;
    for (const auto& [dtype, share] : report.dtypes)
      dtypes[dtype] = JsonObject{
          {"tensors", share.tensors}, {"elements", share.elements}, {"bytes", share.bytes}};
    JsonArray tensors, groups, notes;
    for (const auto& [name, tensor] : report.listed) {
      JsonArray shape;
      for (const std::int64_t extent : tensor.shape) shape.emplace_back(extent);
      tensors.push_back(JsonObject{{"name", printable(name)},
                                   {"dtype", to_string(tensor.dtype)},
                                   {"shape", std::move(shape)},
                                   {"bytes", std::uint64_t(tensor.bytes.size())}});
    }
    for (const ModuleGroup& group : report.groups) {
      JsonArray ranks, scalings;
      for (const std::int64_t rank : group.ranks) ranks.emplace_back(rank);
      for (const double scaling : group.scalings) scalings.emplace_back(scaling);
      groups.push_back(JsonObject{{"name", printable(group.name)},
                                  {"count", group.count},
                                  {"ranks", std::move(ranks)},
                                  {"scalings", std::move(scalings)},
                                  {"parameters", group.parameters},
                                  {"mean_norm", group.mean_norm},
                                  {"largest_norm", group.largest_norm},
                                  {"mean_effective_rank", group.mean_effective_rank}});
    }
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    JsonObject aliases;
    for (const auto& [alias, name] : report.aliases) aliases[printable(alias)] = printable(name);
    return JsonObject{
        {"path", report.path.string()},
        {"kind", report.kind},
        {"container", report.container},
        {"model_type", report.model_type.empty() ? Json() : Json(printable(report.model_type))},
        {"elements", report.elements},
        {"bytes", report.bytes},
        {"dtypes", std::move(dtypes)},
        {"base_root", report.base_root ? Json(*report.base_root) : Json()},
        {"config", report.adapter ? to_json(report.adapter->config) : Json()},
        {"modules", std::move(groups)},
        {"aliases", std::move(aliases)},
        {"history", report.history},
        {"scales", scale_ && report.adapter ? Json(scales_of(*report.adapter)) : Json()},
        {"notes", std::move(notes)},
        {"tensors", std::move(tensors)}};
  }

  std::vector<std::string> paths_;
  std::optional<std::string> adapter_config_;
  std::optional<std::string> html_;
  bool tensors_ = false, force_ = false, scale_ = false;
};

}  // namespace

Verb inspect_verb() {
  return {
      "inspect",
      "Look",
      "say what is in an adapter, a checkpoint or a tensor file",
      "Configuration, modules, ranks, scalings, dtypes, norms and effective ranks of the updates, "
      "sizes and history; no base is needed and nothing is computed but these figures.",
      "lora inspect adapter\n"
      "lora inspect adapter_model.safetensors --adapter-config adapter_config.json\n"
      "lora inspect adapter --scale\n"
      "lora inspect base --tensors",
      []() -> std::unique_ptr<Command> { return std::make_unique<Inspect>(); }};
}

}  // namespace lora::cli
