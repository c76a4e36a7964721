#include "lora/ops/combine.h"

#include <algorithm>
#include <cmath>

#include "cli/exit_codes.h"
#include "cli/progress_line.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

std::string cosine_text(const std::optional<double>& cosine) {
  return cosine ? number_text(*cosine, 3) : "-";
}

class Combine final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.rest("ADAPTER", adapter_paths_,
                 "adapter or run directories; ADAPTER@WEIGHT weighs one, also negatively");
    options.choice("--method", method_, combine_method_names(), "how the updates become one")
        .is_required = true;
    options.integer("--rank", options_.rank, 1,
                    "rank of every site (svd methods; default: the largest that went in)");
    options.number("--energy", options_.energy, 0, 1,
                   "instead: the least rank that keeps this share of ||dW||^2");
    options.number("--density", options_.density, 0, 1,
                   "share of values to keep (ties, dare, magnitude_prune; knots: default 1)");
    options.choice("--majority-sign-method", sign_, {"total", "frequency"},
                   "TIES elects the sign of the sum of values, or of their signs");
    options.seed("--seed", options_.seed, "of what DARE drops");
    options.text("--peft-compat", compat_, "VERSION",
                 "give the numbers of PEFT 0.20 or 0.21, faults included");
    options.integer("--saved-from", saved_from_, 1,
                    "take saved modules, biases and token rows of the Nth adapter where several "
                    "bring different ones");
    options.flag("--any-base", options_.any_base, "combine although different bases are recorded");
    options.group("Output");
    options.text("-o,--output", output_, "DIR", "adapter directory to write").is_required = true;
    options.flag("-f,--force", options_.force, "replace an existing output");
    options.flag("-n,--dry-run", options_.dry_run, "check and compute everything, write nothing");
    options.choice("--dtype", dtype_, {"f32", "bf16", "f16"},
                   "dtype of the factors (default: f32)");
    options.flag("--modules", all_, "list every module");
  }

  Outcome run(Context& context) override {
    options_.output = output_;
    options_.threads = context.threads();
    options_.method = combine_method_named(method_);
    options_.majority_sign = sign_ == "frequency" ? MajoritySign::frequency : MajoritySign::total;
    if (compat_) options_.compat = peft_compat_named(*compat_);
    if (saved_from_) options_.saved_from = static_cast<std::size_t>(*saved_from_);
    if (dtype_) options_.dtype = float_dtype(*dtype_);
    for (const std::string& argument : adapter_paths_)
      options_.adapters.push_back(open_weighted(argument, std::nullopt, context));
    ProgressLine progress(context.streams, "combine", "modules",
                          !context.global.no_progress && !context.global.quiet);
    Sinks sinks = context.sinks;
    sinks.progress = &progress;
    const CombineReport report = combine(options_, sinks);
    progress.clear();
    for (const std::string& note : report.notes) context.console.note(printable(note));
    print(report, context.console);
    return {kDone, result_of(report), {}};
  }

 private:
  // Who is who in tables and in the matrix.
  std::string label(std::size_t i) const { return "[" + std::to_string(i + 1) + "]"; }

  void print(const CombineReport& report, Console& console) const {
    for (std::size_t i = 0; i < options_.adapters.size(); ++i)
      console.line(label(i) + " " + printable(options_.adapters[i].adapter.path.string()) +
                   " times " + number_text(options_.adapters[i].weight, 6));
    print_matrix(report, console);
    print_modules(report, console);
    for (const std::string& name : report.saved)
      console.line("replaces " + printable(name) + " of the base");
    console.line(std::string(report.is_written ? "wrote " : "would write ") + output_ + ": " +
                 std::string(to_string(report.method)) + " of " +
                 plural(options_.adapters.size(), "adapter") + ", " +
                 plural(report.modules.size(), "LoRA module") + ", " + bytes_text(report.bytes));
    if (report.error) console.line(error_text(report));
  }

  static std::string error_text(const CombineReport& report) {
    if (report.method == CombineMethod::linear)
      return "distance from the weighted sum of the updates: " + percent_text(*report.error, 3) +
             (*report.error > 0.01 ? " (cat and svd give the sum itself)" : "");
    return *report.error == 0 ? "exact but for the rounding of the factors"
                              : "error of the rank: " + percent_text(*report.error, 3) +
                                    ", the least that any factors of this rank have";
  }

  void print_matrix(const CombineReport& report, Console& console) const {
    const std::size_t count = options_.adapters.size();
    if (count < 2) return;
    std::vector<std::string> header{"cosine"};
    std::vector<bool> right{false};
    for (std::size_t i = 0; i < count; ++i) {
      header.push_back(label(i));
      right.push_back(true);
    }
    Table table(header, right);
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<std::string> row{label(i)};
      for (std::size_t j = 0; j < count; ++j) {
        std::string text = i == j ? "1" : "-";
        for (const UpdatePair& pair : report.pairs)
          if ((pair.first == i && pair.second == j) || (pair.first == j && pair.second == i))
            text = cosine_text(pair.cosine);
        row.push_back(std::move(text));
      }
      table.row(row);
    }
    for (const std::string& line : table.lines()) console.line(line);
  }

  // How much the adapters at a site stand in each other's way, or work on the same.
  static double overlap(const CombinedModule& module) {
    double largest = -1;
    for (const UpdatePair& pair : module.pairs)
      if (pair.cosine) largest = std::max(largest, std::fabs(*pair.cosine));
    return largest;
  }

  void print_modules(const CombineReport& report, Console& console) const {
    constexpr std::size_t kFew = 6;
    std::vector<const CombinedModule*> modules;
    for (const CombinedModule& module : report.modules) modules.push_back(&module);
    std::stable_sort(modules.begin(), modules.end(),
                     [](const auto* a, const auto* b) { return overlap(*a) > overlap(*b); });
    const std::size_t shown = all_ ? modules.size() : std::min(kFew, modules.size());
    std::vector<std::string> header{"module", "ranks", "rank", "error"};
    std::vector<bool> right{false, false, true, true};
    // Of many pairs the one with the largest cosine.
    const bool is_single = report.pairs.size() <= 3;
    if (!is_single) header.emplace_back("largest cosine");
    if (is_single)
      for (const UpdatePair& pair : report.pairs)
        header.push_back("cos " + label(pair.first) + label(pair.second));
    right.resize(header.size(), true);
    Table table(header, right);
    for (std::size_t i = 0; i < shown; ++i) table.row(row_of(*modules[i], is_single));
    for (const std::string& line : table.lines()) console.line(line);
    if (shown < modules.size())
      console.line("and " + std::to_string(modules.size() - shown) + " more modules (--modules)");
  }

  std::vector<std::string> row_of(const CombinedModule& module, bool is_single) const {
    std::string ranks;
    for (const std::int64_t rank : module.ranks)
      ranks += (ranks.empty() ? "" : "+") + (rank == 0 ? "-" : std::to_string(rank));
    std::vector<std::string> row{printable(module.module_path), ranks, std::to_string(module.rank),
                                 module.error ? percent_text(*module.error, 3) : ""};
    if (is_single) {
      for (const UpdatePair& pair : module.pairs) row.push_back(cosine_text(pair.cosine));
      return row;
    }
    const UpdatePair* largest = nullptr;
    for (const UpdatePair& pair : module.pairs)
      if (pair.cosine &&
          (largest == nullptr || std::fabs(*pair.cosine) > std::fabs(*largest->cosine)))
        largest = &pair;
    row.push_back(largest == nullptr ? "-"
                                     : cosine_text(largest->cosine) + " " + label(largest->first) +
                                           label(largest->second));
    return row;
  }

  static JsonArray pairs_of(const std::vector<UpdatePair>& pairs) {
    JsonArray list;
    for (const UpdatePair& pair : pairs)
      list.push_back(JsonObject{{"first", std::uint64_t(pair.first + 1)},
                                {"second", std::uint64_t(pair.second + 1)},
                                {"cosine", pair.cosine ? Json(*pair.cosine) : Json()}});
    return list;
  }

  JsonObject result_of(const CombineReport& report) const {
    JsonArray adapters, modules, saved, notes;
    for (const WeightedAdapter& one : options_.adapters)
      adapters.push_back(JsonObject{{"path", one.adapter.path.string()}, {"weight", one.weight}});
    for (const CombinedModule& module : report.modules)
      modules.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"ranks", JsonArray(module.ranks.begin(), module.ranks.end())},
                                   {"rank", module.rank},
                                   {"error", module.error ? Json(*module.error) : Json()},
                                   {"cosines", pairs_of(module.pairs)}});
    for (const std::string& name : report.saved) saved.emplace_back(printable(name));
    for (const std::string& note : report.notes) notes.emplace_back(printable(note));
    return {{"output", output_},
            {"written", report.is_written},
            {"adapters", std::move(adapters)},
            {"method", to_string(report.method)},
            {"peft_compat", compat_ ? Json(*compat_) : Json()},
            {"error", report.error ? Json(*report.error) : Json()},
            {"cosines", pairs_of(report.pairs)},
            {"modules", std::move(modules)},
            {"replaced", std::move(saved)},
            {"bytes", report.bytes},
            {"notes", std::move(notes)}};
  }

  CombineOptions options_;
  std::vector<std::string> adapter_paths_;
  std::string method_, output_, sign_ = "total";
  std::optional<std::string> compat_, dtype_;
  std::optional<std::int64_t> saved_from_;
  bool all_ = false;
};

}  // namespace

Verb combine_verb() {
  return {
      "combine",
      "Change",
      "make one adapter of several",
      "Combines the updates dW = s B A of adapters on one base, each with its weight, without the "
      "base. cat is the weighted sum exactly, at the sum of the ranks; svd its best approximation "
      "at a rank; both for any ranks and scalings. ties, dare_linear, dare_ties and "
      "magnitude_prune make factors sparse first, their forms with _svd the updates. linear adds "
      "A and B each, as PEFT does, and reports how far that is from the sum. slerp lies on the "
      "arc between two updates, knots aligns all of them in one basis before it elects signs.\n\n"
      "The interference matrix comes first: the cosine between the updates of each pair, over "
      "everything and by module. Near 0 they do not meet; near 1 they do the same; near -1 they "
      "undo each other.\n\nNumbers are those of the definition, computed in f64. TIES elects signs "
      "among weighted values, so that a negative weight votes for its negative. --peft-compat "
      "gives those of PEFT's add_weighted_adapter.",
      "lora combine style@0.7 facts@0.3 --method cat -o both\n"
      "lora combine a b c --method svd --rank 16 -o all\n"
      "lora combine a b --method ties_svd --density 0.3 -o merged",
      []() -> std::unique_ptr<Command> { return std::make_unique<Combine>(); }};
}

}  // namespace lora::cli
