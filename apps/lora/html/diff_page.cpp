#include "html/diff_page.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "cli/units.h"
#include "commands/output_report.h"
#include "html/page.h"
#include "html/plots.h"

namespace lora::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;
using Facts = std::vector<std::pair<std::string, std::string>>;

constexpr std::size_t kShown = 500;

HtmlPage page_of(const DiffSides& sides, Facts facts) {
  HtmlPage page("lora diff");
  facts.insert(facts.begin(), {{"A", sides.a}, {"B", sides.b}});
  if (sides.outputs) {
    facts.emplace_back("outputs", difference_text(sides.outputs->difference));
    if (sides.outputs->effect_a)
      facts.emplace_back("effect of A", difference_text(*sides.outputs->effect_a));
    if (sides.outputs->effect_b)
      facts.emplace_back("effect of B", difference_text(*sides.outputs->effect_b));
  }
  page.facts(facts);
  return page;
}

void add_names(HtmlPage& page, const std::string& title, const std::vector<std::string>& names) {
  if (names.empty()) return;
  page.heading(title + " (" + count_text(names.size()) + ")");
  Rows rows;
  for (const std::string& name : names)
    if (rows.size() < kShown) rows.push_back({name});
  page.table({"name"}, rows, {});
}

void add_map(HtmlPage& page, const std::string& caption, const HeatMap& map) {
  if (map.rows.empty() || map.columns.empty()) return;
  std::vector<std::string> rows = map.rows;
  for (std::string& row : rows)
    if (row.empty()) row = "model";
  page.figure(caption, heat_map(rows, map.columns, map.values));
}

void add_groups(HtmlPage& page, const std::string& title,
                const std::vector<GroupDifference>& groups) {
  Rows rows;
  for (const GroupDifference& group : groups)
    rows.push_back({group.name.empty() ? "model" : group.name, std::to_string(group.modules),
                    std::to_string(group.changed), number_text(group.norm_a),
                    number_text(group.norm_b), number_text(group.relative),
                    number_text(group.cosine, 6), number_text(group.largest_angle, 3)});
  page.table({title, "modules", "changed", "|dA|", "|dB|", "relative", "cosine", "angle"}, rows,
             {false, true, true, true, true, true, true, true});
}

std::vector<std::string> spectra(const std::vector<ModuleDifference>& modules) {
  struct Sides {
    std::vector<const std::vector<double>*> a, b;
  };
  std::map<std::string, Sides> by_leaf;
  for (const ModuleDifference& module : modules) {
    by_leaf[module.place.leaf].a.push_back(&module.distance.singular_values_a);
    by_leaf[module.place.leaf].b.push_back(&module.distance.singular_values_b);
  }
  std::vector<std::string> plots;
  for (const auto& [leaf, sides] : by_leaf)
    plots.push_back(curve_plot(
        leaf, {{"A", summary_of(sides.a).mean, false}, {"B", summary_of(sides.b).mean, true}}));
  return plots;
}

void add_modules(HtmlPage& page, const std::vector<ModuleDifference>& modules) {
  std::vector<const ModuleDifference*> sorted;
  for (const ModuleDifference& module : modules) sorted.push_back(&module);
  const auto key = [](const ModuleDifference& module) {
    const double relative = module.distance.relative;
    return std::isnan(relative) ? std::numeric_limits<double>::infinity() : relative;
  };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const auto* x, const auto* y) { return key(*x) > key(*y); });
  const auto pair = [](const std::string& x, const std::string& y) {
    return x == y ? x : x + " / " + y;
  };
  Rows rows;
  for (const ModuleDifference* module : sorted) {
    if (rows.size() == kShown) break;
    rows.push_back({module->module_path,
                    pair(std::to_string(module->rank_a), std::to_string(module->rank_b)),
                    pair(number_text(module->scaling_a), number_text(module->scaling_b)),
                    number_text(module->distance.norm_a), number_text(module->distance.norm_b),
                    number_text(module->distance.relative), number_text(module->distance.cosine, 6),
                    number_text(module->distance.largest_angle, 3)});
  }
  page.heading("Modules, most different first");
  page.table({"module", "rank", "scaling", "|dA|", "|dB|", "relative", "cosine", "angle"}, rows,
             {false, true, true, true, true, true, true, true});
  if (sorted.size() > kShown) page.paragraph("and " + count_text(sorted.size() - kShown) + " more");
}

void add_ulps(HtmlPage& page, const std::vector<UlpHistogram>& histograms) {
  for (const UlpHistogram& histogram : histograms) {
    std::vector<std::string> labels;
    std::vector<double> values;
    for (std::size_t i = 0; i < histogram.counts.size(); ++i) {
      labels.push_back(i == 0   ? "equal"
                       : i == 1 ? "1"
                                : "from " + count_text(std::uint64_t{1} << (i - 1)));
      values.push_back(static_cast<double>(histogram.counts[i]));
    }
    page.figure("Elements of changed " + histogram.dtype + " tensors by representable steps",
                bar_plot(histogram.dtype, labels, values));
  }
}

}  // namespace

std::string diff_page(const DiffSides& sides, const AdapterDiff& result) {
  HtmlPage page = page_of(sides, {{"result", result.is_equal() ? "equal" : "different"},
                                  {"|dA|, |dB|", number_text(result.total_norm_a) + ", " +
                                                     number_text(result.total_norm_b)},
                                  {"|dA - dB|", number_text(result.total_difference)},
                                  {"cosine", number_text(result.total_cosine, 6)}});
  if (!result.fields.empty()) {
    page.heading("Configuration");
    Rows rows;
    for (const FieldDifference& field : result.fields)
      rows.push_back({field.field, field.a.empty() ? "(absent)" : field.a,
                      field.b.empty() ? "(absent)" : field.b,
                      field.effect.empty() ? "" : "changes " + field.effect});
    page.table({"field", "A", "B", ""}, rows, {});
  }
  add_names(page, "Only in A", result.only_in_a);
  add_names(page, "Only in B", result.only_in_b);
  add_names(page, "Saved parameters that differ", result.changed_replacements);
  if (result.modules.empty()) return page.finish();
  page.heading("Where they differ");
  add_map(page, "|dA - dB| / |dA| by layer and module", result.relative_map);
  add_map(page, "Cosine of the two updates by layer and module", result.cosine_map);
  add_groups(page, "modules named", result.by_leaf);
  add_groups(page, "layer", result.by_layer);
  page.heading("How they differ");
  page.figures("Singular values of the updates, mean over the layers: A solid, B dashed",
               spectra(result.modules));
  std::vector<double> cosines;
  std::vector<double> angles;
  for (const ModuleDifference& module : result.modules) {
    cosines.push_back(module.distance.cosine);
    angles.push_back(module.distance.largest_angle);
  }
  page.figures("Number of modules by cosine and by largest principal angle (degrees)",
               {histogram("cosine", cosines), histogram("angle", angles)});
  add_modules(page, result.modules);
  return page.finish();
}

std::string diff_page(const DiffSides& sides, const CheckpointDiff& result) {
  HtmlPage page =
      page_of(sides, {{"result", result.is_equal() ? "equal" : "different"},
                      {"tensors that differ", count_text(result.changed.size())},
                      {"equal tensors", count_text(static_cast<std::uint64_t>(result.equal))}});
  add_names(page, "Only in A", result.only_in_a);
  add_names(page, "Only in B", result.only_in_b);
  if (result.changed.empty()) return page.finish();
  page.heading("Where they differ");
  add_map(page, "|A - B| / |A| by layer and tensor", result.relative_map);
  Rows blocks;
  for (const BlockDifference& block : result.blocks)
    blocks.push_back({block.name, std::to_string(block.tensors), std::to_string(block.changed),
                      count_text(static_cast<std::uint64_t>(block.changed_elements)),
                      number_text(block.relative), number_text(block.max_absolute)});
  page.table({"block", "tensors", "changed", "changed elements", "relative", "max |a-b|"}, blocks,
             {false, true, true, true, true, true});
  page.heading("How they differ");
  add_ulps(page, result.ulps);
  std::vector<std::string> plots;
  for (const TensorDifference& tensor : result.changed)
    if (tensor.rank && !tensor.rank->singular_values.empty() && plots.size() < 12)
      plots.push_back(curve_plot(tensor.name, {{"A - B", tensor.rank->singular_values, false}}));
  if (!plots.empty()) page.figures("Singular values of differences", plots);
  page.heading("Tensors, most different first");
  Rows rows;
  for (const TensorDifference& tensor : result.changed) {
    if (rows.size() == kShown) break;
    std::string rank;
    if (tensor.rank)
      rank = (tensor.rank->is_lower_bound ? "at least " : "") + std::to_string(tensor.rank->rank) +
             (tensor.rank->is_low_rank ? " (low rank)" : "");
    rows.push_back({tensor.name, tensor.what, tensor.a, tensor.b, number_text(tensor.max_absolute),
                    number_text(tensor.relative),
                    count_text(static_cast<std::uint64_t>(tensor.changed_elements)), rank});
  }
  page.table({"tensor", "what", "A", "B", "max |a-b|", "relative", "changed", "rank"}, rows,
             {false, false, false, false, true, true, true, true});
  return page.finish();
}

std::string diff_page(const DiffSides& sides, const TunedDiff& result) {
  HtmlPage page = page_of(
      sides, {{"result", result.is_equal() ? "B is the base with the update of A" : "different"},
              {"|update|, |tuned - base|",
               number_text(result.update_norm) + ", " + number_text(result.change_norm)},
              {"difference", number_text(result.difference)},
              {"cosine", number_text(result.cosine, 6)},
              {"best scale", number_text(result.best_scale, 6)}});
  page.heading("Where they differ");
  add_map(page, "Difference of update and change by layer and module", result.relative_map);
  Rows rows;
  for (const TunedModule& module : result.modules) {
    if (rows.size() == kShown) break;
    rows.push_back({module.module_path, number_text(module.update_norm),
                    number_text(module.change_norm), number_text(module.relative),
                    number_text(module.cosine, 6), number_text(module.best_scale, 6),
                    module.not_compared});
  }
  page.table({"module", "|update|", "|tuned - base|", "relative", "cosine", "best scale", ""}, rows,
             {false, true, true, true, true, true, false});
  add_names(page, "Changed, and not by the adapter", result.changed_elsewhere);
  add_names(page, "Saved parameters that B does not hold", result.changed_replacements);
  add_names(page, "Only in the base", result.only_in_base);
  add_names(page, "Only in B", result.only_in_tuned);
  return page.finish();
}

}  // namespace lora::cli
