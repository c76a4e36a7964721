#include "html/inspect_page.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "cli/units.h"
#include "html/page.h"
#include "html/plots.h"
#include "lora/ops/diff.h"

namespace lora::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::uint64_t as_count(std::int64_t value) { return static_cast<std::uint64_t>(value); }

void add_contents(HtmlPage& page, const InspectReport& report) {
  std::vector<std::pair<std::string, std::string>> facts{
      {"kind", report.kind + ", " + report.container},
      {"tensors", count_text(as_count(report.tensors))},
      {"parameters", count_text(as_count(report.elements))},
      {"bytes", bytes_text(report.bytes)}};
  if (!report.model_type.empty()) facts.emplace_back("model type", report.model_type);
  if (report.base_root) facts.emplace_back("base root", *report.base_root);
  if (report.adapter) {
    const AdapterConfig& config = report.adapter->config;
    facts.emplace_back("rank, alpha",
                       std::to_string(config.rank) + ", " + number_text(config.alpha));
    facts.emplace_back("base", config.base_model_name_or_path.value_or("(not named)"));
  }
  page.facts(facts);
  for (const std::string& note : report.notes) page.paragraph("Note: " + note);
  Rows shares;
  for (const auto& [dtype, share] : report.dtypes)
    shares.push_back({dtype, count_text(as_count(share.tensors)),
                      count_text(as_count(share.elements)), bytes_text(share.bytes)});
  page.table({"dtype", "tensors", "elements", "bytes"}, shares, {false, true, true, true});
}

// One value of every module by layer and leaf name.
template <typename Value>
std::string map_of(const std::vector<ModuleFigures>& modules, Value&& value) {
  std::vector<std::string> columns;
  std::map<std::int64_t, std::size_t> layers;  // -1: outside layers
  for (const ModuleFigures& module : modules) {
    const ModulePlace place = place_of(module.module_path);
    if (std::find(columns.begin(), columns.end(), place.leaf) == columns.end())
      columns.push_back(place.leaf);
    layers.emplace(place.layer.value_or(-1), 0);
  }
  std::vector<std::string> rows;
  for (auto& [layer, row] : layers) {
    row = rows.size();
    rows.push_back(layer < 0 ? "model" : std::to_string(layer));
  }
  std::vector<double> values(rows.size() * columns.size(),
                             std::numeric_limits<double>::quiet_NaN());
  for (const ModuleFigures& module : modules) {
    const ModulePlace place = place_of(module.module_path);
    const auto column = static_cast<std::size_t>(
        std::find(columns.begin(), columns.end(), place.leaf) - columns.begin());
    values[layers.at(place.layer.value_or(-1)) * columns.size() + column] = value(module);
  }
  return heat_map(rows, columns, values);
}

// Mean singular values of all modules with one leaf name, and the range they lie in.
std::vector<std::string> spectra(const std::vector<ModuleFigures>& modules) {
  std::map<std::string, std::vector<const std::vector<double>*>> by_leaf;
  for (const ModuleFigures& module : modules)
    by_leaf[place_of(module.module_path).leaf].push_back(&module.update.singular_values);
  std::vector<std::string> plots;
  for (const auto& [leaf, spectra_of_leaf] : by_leaf) {
    const CurveSummary summary = summary_of(spectra_of_leaf);
    plots.push_back(
        curve_plot(leaf, {{"mean of " + leaf, summary.mean, false}}, summary.low, summary.high));
  }
  return plots;
}

void add_adapter(HtmlPage& page, const InspectReport& report) {
  page.heading("Modules");
  Rows rows;
  for (const ModuleGroup& group : report.groups) {
    std::string ranks;
    for (const std::int64_t rank : group.ranks)
      ranks += (ranks.empty() ? "" : ", ") + std::to_string(rank);
    std::string scalings;
    for (const double scaling : group.scalings)
      scalings += (scalings.empty() ? "" : ", ") + number_text(scaling);
    rows.push_back({group.name, std::to_string(group.count), ranks, scalings,
                    count_text(as_count(group.parameters)), number_text(group.mean_norm),
                    number_text(group.largest_norm), number_text(group.mean_effective_rank, 3)});
  }
  page.table({"modules", "count", "rank", "scaling", "parameters", "|dW| mean", "largest",
              "effective rank"},
             rows, {false, true, true, true, true, true, true, true});
  if (report.modules.empty()) return;
  page.heading("Size of the updates");
  std::vector<double> norms;
  for (const ModuleFigures& row : report.modules) norms.push_back(row.update.norm);
  page.figures("Frobenius norm of the update by layer and module, and number of modules by norm",
               {map_of(report.modules, [](const ModuleFigures& row) { return row.update.norm; }),
                histogram("|dW|", norms)});
  page.heading("Shape of the updates");
  page.figure(
      "Effective rank by layer and module",
      map_of(report.modules, [](const ModuleFigures& row) { return row.update.effective_rank; }));
  page.figures("Singular values of the updates by module: mean, and the range over the layers",
               spectra(report.modules));
  if (!report.manifest || report.manifest->history.empty()) return;
  page.heading("History");
  for (const Json& entry : report.manifest->history) page.paragraph(dump_json(entry, JsonStyle{}));
}

void add_tensors(HtmlPage& page, const InspectReport& report) {
  constexpr std::size_t kShown = 2000;
  page.heading("Tensors");
  Rows rows;
  for (const auto& [name, tensor] : report.listed) {
    if (rows.size() == kShown) break;
    rows.push_back({name, std::string(to_string(tensor.dtype)), shape_to_string(tensor.shape),
                    count_text(tensor.bytes.size())});
  }
  page.table({"name", "dtype", "shape", "bytes"}, rows, {false, false, false, true});
  if (report.listed.size() > kShown)
    page.paragraph("and " + count_text(report.listed.size() - kShown) + " more");
}

}  // namespace

std::string inspect_page(const InspectReport& report) {
  HtmlPage page("lora inspect: " + report.path.filename().string());
  add_contents(page, report);
  if (report.adapter) add_adapter(page, report);
  add_tensors(page, report);
  return page.finish();
}

}  // namespace lora::cli
