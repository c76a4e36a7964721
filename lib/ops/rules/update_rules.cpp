#include <algorithm>
#include <cmath>
#include <map>

#include "ops/diff_groups.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

bool is_inert(const ModuleFigures& module) {
  return module.update.norm == 0 && module.a.first_non_finite < 0 && module.b.first_non_finite < 0;
}

// Trained factors keep their initial spread to within 4 %, so the spread proves nothing by itself;
// samples of n values scatter by another 2 / sqrt(n).
constexpr double kSpread = 0.04;

bool is_near(const TensorStatistics& statistics, double deviation) {
  const auto n = static_cast<double>(statistics.count);
  return std::fabs(statistics.std / deviation - 1) < kSpread + 2 / std::sqrt(n);
}

// PEFT's starts: A uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt 5) or normal with
// deviation 1/r, embeddings' B standard normal.
bool is_initial(const LoraModule& module, const ModuleFigures& figures) {
  if (module.kind == LayerKind::embedding)
    return figures.b.count > 1 && figures.a.is_all_zero && is_near(figures.b, 1);
  if (figures.a.count < 2 || !figures.b.is_all_zero) return false;
  const double bound =
      1 / std::sqrt(static_cast<double>(module.a.numel()) / static_cast<double>(module.a.shape[0]));
  const double peak = std::max(-figures.a.min, figures.a.max);
  const bool is_uniform =
      is_near(figures.a, bound / std::sqrt(3.0)) && peak <= bound * (1 + 0x1p-7);
  return is_uniform || is_near(figures.a, 1 / static_cast<double>(module.rank));
}

void a_at_initialisation(const Subject& subject, Report& report) {
  std::vector<std::string> fresh;
  for (std::size_t i = 0; i < subject.modules.size(); ++i)
    if (is_inert(subject.modules[i]) && is_initial(subject.adapter.modules[i], subject.modules[i]))
      fresh.push_back(subject.modules[i].module_path);
  if (fresh.empty()) return;
  report.add(
      std::to_string(fresh.size()) + " of " + std::to_string(subject.modules.size()) +
          " modules hold what PEFT initialises them with, and no update: " + report.list(fresh, 3),
      {.tensor = {}, .module = fresh.front(), .hint = {}, .severity = {}});
}

std::string row_list(const std::vector<std::int64_t>& rows, Report& report) {
  std::vector<std::string> texts;
  for (const std::int64_t row : rows) texts.push_back(std::to_string(row));
  return report.list(texts);
}

// Rows at the end of A that are zero are the other shards of a tensor that tensor-partial-shard
// names.
bool is_rest_of_shard(const ModuleFigures& module) {
  const TensorStatistics& a = module.a;
  return module.kind != LayerKind::embedding && a.zero_tail_rows * 2 >= a.rows &&
         static_cast<std::int64_t>(module.update.dead_rank_rows.size()) == a.zero_tail_rows;
}

void rank_rows_dead(const Subject& subject, Report& report) {
  std::vector<const ModuleFigures*> modules;
  for (const ModuleFigures& module : subject.modules)
    if (!module.update.dead_rank_rows.empty() && !is_rest_of_shard(module))
      modules.push_back(&module);
  if (modules.empty()) return;
  const auto count = [](const ModuleFigures& module) {
    return std::to_string(module.update.dead_rank_rows.size()) + " of " +
           std::to_string(module.update.singular_values.size());
  };
  const ModuleFigures& first = *modules.front();
  std::string message;
  if (modules.size() == 1) {
    message = first.module_path + ": " + count(first) +
              " rank rows are zero in A or B and add nothing: " +
              row_list(first.update.dead_rank_rows, report);
  } else {
    std::vector<std::string> texts;
    for (const ModuleFigures* module : modules)
      texts.push_back(module->module_path + " (" + count(*module) + ")");
    message = "in " + std::to_string(modules.size()) + " of " +
              std::to_string(subject.modules.size()) +
              " modules rank rows are zero in A or B and add nothing: " + report.list(texts, 3);
  }
  report.add(std::move(message),
             {.tensor = {}, .module = first.module_path, .hint = {}, .severity = {}});
}

void rank_rows_duplicate(const Subject& subject, Report& report) {
  for (const ModuleFigures& module : subject.modules) {
    const auto& pairs = module.update.duplicate_rank_rows;
    if (pairs.empty()) continue;
    std::vector<std::string> texts;
    for (const auto& [i, j] : pairs) texts.push_back(std::to_string(i) + " = " + std::to_string(j));
    report.add(module.module_path + ": rank rows point in the same direction, the rank is lower " +
                   "than it looks: " + report.list(texts),
               {.tensor = {}, .module = module.module_path, .hint = {}, .severity = {}});
  }
}

// F16 is coarse below 6e-5 and small updates do live there, so some are normal; other dtypes reach
// such numbers only by accident.
constexpr double kF16Share = 0.01;

void denormals(const Subject& subject, Report& report) {
  std::vector<std::string> tensors;
  std::int64_t total = 0;
  for (const auto& [key, statistics] : subject.tensors) {
    const bool is_f16 = subject.adapter.tensors.at(key).dtype == DType::f16;
    const auto count = static_cast<double>(statistics.denormal_count);
    if (count <= (is_f16 ? kF16Share * static_cast<double>(statistics.count) : 0)) continue;
    tensors.push_back(key + " (" + std::to_string(statistics.denormal_count) + ")");
    total += statistics.denormal_count;
  }
  if (tensors.empty()) return;
  report.add(std::to_string(total) + " values below the smallest normal number of their dtype in " +
                 std::to_string(tensors.size()) + " tensors: " + report.list(tensors, 3),
             {.tensor = {}, .module = {}, .hint = {}, .severity = {}});
}

// Norms of one kind of module spread over layers by about a decade at most, so one decade above the
// median and six robust deviations is worth a look, two decades and eight is not training. The
// deviation is never taken below a tenth of a decade: a family of near-equal norms has no outliers.
constexpr std::size_t kSmallestFamily = 8;
constexpr double kLeastDeviation = 0.1;
constexpr double kLook = 1, kLookDeviations = 6;
constexpr double kWrong = 2, kWrongDeviations = 8;

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void module_outlier(const Subject& subject, Report& report) {
  std::map<std::string, std::vector<const ModuleFigures*>> families;
  for (const ModuleFigures& module : subject.modules)
    if (module.update.norm > 0) families[place_of(module.module_path).leaf].push_back(&module);
  for (const auto& [leaf, modules] : families) {
    if (modules.size() < kSmallestFamily) continue;
    std::vector<double> decades, deviations;
    for (const ModuleFigures* module : modules) decades.push_back(std::log10(module->update.norm));
    const double median = median_of(decades);
    for (const double value : decades) deviations.push_back(std::fabs(value - median));
    const double deviation = std::max(kLeastDeviation, 1.4826 * median_of(deviations));
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const double above = decades[i] - median;
      const bool is_wrong = above >= kWrong && above >= kWrongDeviations * deviation;
      if (!is_wrong && !(above >= kLook && above >= kLookDeviations * deviation)) continue;
      report.add(modules[i]->module_path + ": the update's norm " +
                     figure(modules[i]->update.norm) + " is " + figure(std::pow(10, above)) +
                     " times the median of all " + leaf + " (" + figure(std::pow(10, median)) +
                     "), " + figure(above / deviation) + " robust deviations above it",
                 {.tensor = {},
                  .module = modules[i]->module_path,
                  .hint = {},
                  .severity = is_wrong ? Severity::warning : Severity::note});
    }
  }
}

// Adapters of trained models change weights by 1 to 30 % of their norm. More than the weight itself
// happens on small models trained from random weights; ten times is a wrong scaling.
constexpr double kLarge = 1, kTooLarge = 10;

void update_too_large(const Subject& subject, Report& report) {
  std::vector<const ModuleFigures*> large;
  for (const ModuleFigures& module : subject.modules)
    if (!module.update.is_direction && module.relative_update.value_or(0) > kLarge)
      large.push_back(&module);
  if (large.empty()) return;
  const ModuleFigures& worst = **std::max_element(large.begin(), large.end(), [](auto* x, auto* y) {
    return *x->relative_update < *y->relative_update;
  });
  report.add("in " + std::to_string(large.size()) + " of " +
                 std::to_string(subject.modules.size()) +
                 " modules the update is larger than the weight it is added to; most in " +
                 worst.module_path + ": " + figure(*worst.relative_update) + " times (scaling " +
                 figure(worst.scaling) + ")",
             {.tensor = {},
              .module = worst.module_path,
              .hint = {},
              .severity = *worst.relative_update > kTooLarge ? Severity::warning : Severity::note});
}

constexpr double kConcentrated = 0.99;
constexpr std::int64_t kLeastRank = 8;

void update_concentrated(const Subject& subject, Report& report) {
  std::vector<std::string> modules;
  for (const ModuleFigures& module : subject.modules)
    if (module.rank >= kLeastRank && module.update.concentration > kConcentrated)
      modules.push_back(module.module_path);
  if (modules.empty()) return;
  report.add(
      "in " + std::to_string(modules.size()) + " of " + std::to_string(subject.modules.size()) +
          " modules more than 99 % of the update lies in one direction: " + report.list(modules, 3),
      {.tensor = {}, .module = modules.front(), .hint = {}, .severity = {}});
}

}  // namespace

const std::vector<Rule>& update_rules() {
  static const std::vector<Rule> rules{
      {{"LV406", "a-at-initialisation", Severity::note,
        "the spread of the randomly initialised factor where the update is zero",
        "The module is as PEFT initialises it: it was never trained, or its training was not "
        "saved.",
        "check which parameters were trainable, then train again"},
       a_at_initialisation},
      {{"LV407", "rank-rows-dead", Severity::warning, "rows of A and columns of B that are zero",
        "Some rank rows add nothing to the update. PEFT does not write such adapters; zero padding "
        "and lost shards look like this.",
        "resize the adapter to the rank it uses"},
       rank_rows_dead},
      {{"LV408", "rank-rows-duplicate", Severity::warning,
        "directions of the rows of A (embeddings: of the columns of B)",
        "Two rank rows start from the same random values: shards were joined twice, or the seed "
        "was "
        "reset between them.",
        "resize the adapter to the rank it uses, and check how it was initialised"},
       rank_rows_duplicate},
      {{"LV409", "denormals", Severity::note,
        "values below the smallest normal number of their dtype",
        "Such values have lost precision and are slow to compute with on many processors.",
        "save the adapter in F32 or BF16"},
       denormals},
      {{"LV410", "module-outlier", Severity::warning,
        "norms of the updates of all modules with the same last name",
        "A module's update is far larger than those of its kind: a wrong alpha_pattern, a damaged "
        "tensor, or training that diverged there (a note below a hundred times the median).",
        "compare the module's scaling and factors with those of its neighbours"},
       module_outlier},
      {{"LV411", "update-too-large", Severity::warning,
        "norm of the update against the norm of the base weight",
        "The update outweighs what it is added to: the scaling is too large, or the base is "
        "another one (a note below ten times).",
        "check lora_alpha, the rank and use_rslora against the training configuration"},
       update_too_large},
      {{"LV412", "update-concentrated", Severity::note,
        "share of the update's squared norm in its largest singular value",
        "The update is practically of rank 1; a smaller rank would hold it.",
        "resize the adapter, if size matters"},
       update_concentrated},
  };
  return rules;
}

}  // namespace lora::rules
