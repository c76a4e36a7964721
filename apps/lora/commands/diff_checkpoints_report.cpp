#include <algorithm>

#include "commands/diff_lists.h"
#include "commands/diff_report.h"

namespace lora::cli {
namespace {

std::string count_cell(std::int64_t count) { return count_text(static_cast<std::uint64_t>(count)); }

std::string rank_text(const TensorDifference& tensor) {
  if (!tensor.rank) return "";
  return (tensor.rank->is_lower_bound ? ">= " : "") + std::to_string(tensor.rank->rank) +
         (tensor.rank->is_low_rank ? " (low)" : "");
}

void print_tensors(const CheckpointDiff& diff, bool all, Console& console) {
  Table table({"  tensor", "what", "A", "B", "max |a-b|", "relative", "changed", "rank"},
              {false, false, false, false, true, true, true, true});
  const std::size_t shown = shown_of(diff.changed.size(), all);
  for (std::size_t i = 0; i < shown; ++i) {
    const TensorDifference& tensor = diff.changed[i];
    const bool has_values = tensor.what != "shape";
    table.row({"  " + printable(tensor.name), tensor.what, tensor.a, tensor.b,
               has_values ? number_text(tensor.max_absolute) : "",
               has_values ? number_text(tensor.relative) : "",
               has_values
                   ? count_cell(tensor.changed_elements) + " of " + count_cell(tensor.elements)
                   : "",
               rank_text(tensor)});
  }
  print_table(table, shown, diff.changed.size(), console);
}

void print_blocks(const CheckpointDiff& diff, bool all, Console& console) {
  std::vector<const BlockDifference*> changed;
  for (const BlockDifference& block : diff.blocks)
    if (block.changed != 0) changed.push_back(&block);
  if (changed.size() < 2) return;
  Table table({"  block", "tensors", "changed", "relative", "max |a-b|"},
              {false, true, true, true, true});
  const std::size_t shown = shown_of(changed.size(), all);
  for (std::size_t i = 0; i < shown; ++i)
    table.row({"  " + printable(changed[i]->name), std::to_string(changed[i]->tensors),
               std::to_string(changed[i]->changed), number_text(changed[i]->relative),
               number_text(changed[i]->max_absolute)});
  print_table(table, shown, changed.size(), console);
}

// "0", "1", "2-3", "4-7": the steps of a bucket.
std::string bucket_text(std::size_t bucket) {
  if (bucket < 2) return std::to_string(bucket);
  if (bucket > 24) return ">= 2^" + std::to_string(bucket - 1);
  const std::uint64_t first = std::uint64_t{1} << (bucket - 1);
  return count_text(first) + "-" + count_text(2 * first - 1);
}

void print_steps(const UlpHistogram& histogram, Console& console) {
  console.line("values by distance, in steps of " + histogram.dtype + ":");
  Table table({"  steps", "values"}, {true, true});
  for (std::size_t i = 0; i < histogram.counts.size(); ++i)
    if (histogram.counts[i] != 0)
      table.row({"  " + bucket_text(i), count_cell(histogram.counts[i])});
  if (histogram.not_comparable != 0)
    table.row({"  NaN on one side", count_cell(histogram.not_comparable)});
  const auto lines = table.lines();
  for (std::size_t i = 1; i < lines.size(); ++i) console.line(lines[i]);
}

JsonArray counts_json(const std::vector<std::int64_t>& counts) {
  JsonArray array;
  for (const std::int64_t count : counts) array.emplace_back(count);
  return array;
}

Json ulps_json(const UlpHistogram& histogram) {
  if (histogram.counts.empty()) return {};
  return JsonObject{{"dtype", histogram.dtype},
                    {"counts", counts_json(histogram.counts)},
                    {"not_comparable", histogram.not_comparable}};
}

Json rank_json(const std::optional<DifferenceRank>& rank) {
  if (!rank) return {};
  return JsonObject{{"rank", rank->rank},
                    {"lower_bound", rank->is_lower_bound},
                    {"residual", rank->residual},
                    {"rounding", rank->rounding},
                    {"low_rank", rank->is_low_rank},
                    {"singular_values", numbers_json(rank->singular_values)}};
}

Json tensor_json(const TensorDifference& tensor) {
  return JsonObject{{"tensor", printable(tensor.name)},
                    {"what", tensor.what},
                    {"a", tensor.a},
                    {"b", tensor.b},
                    {"max_absolute", tensor.max_absolute},
                    {"difference", tensor.difference},
                    {"norm_a", tensor.norm_a},
                    {"norm_b", tensor.norm_b},
                    {"relative", tensor.relative},
                    {"changed_elements", tensor.changed_elements},
                    {"elements", tensor.elements},
                    {"non_finite_a", tensor.non_finite_a},
                    {"non_finite_b", tensor.non_finite_b},
                    {"ulps", ulps_json(tensor.ulps)},
                    {"rank", rank_json(tensor.rank)}};
}

}  // namespace

void print_diff(const CheckpointDiff& diff, bool all, Console& console) {
  if (diff.is_equal()) {
    console.line("equal: " + plural(static_cast<std::uint64_t>(diff.equal), "tensor") +
                 ", same names, dtypes, shapes and bytes");
    return;
  }
  print_names("only in A", diff.only_in_a, all, console);
  print_names("only in B", diff.only_in_b, all, console);
  console.line(plural(diff.changed.size(), "tensor") +
               (diff.changed.size() == 1 ? " differs, " : " differ, ") + count_cell(diff.equal) +
               " equal");
  if (diff.changed.empty()) return;
  print_tensors(diff, all, console);
  print_blocks(diff, all, console);
  for (const UlpHistogram& histogram : diff.ulps) print_steps(histogram, console);
  const auto examined = std::count_if(diff.changed.begin(), diff.changed.end(),
                                      [](const TensorDifference& t) { return t.rank.has_value(); });
  const auto low =
      std::count_if(diff.changed.begin(), diff.changed.end(),
                    [](const TensorDifference& t) { return t.rank && t.rank->is_low_rank; });
  if (examined != 0)
    console.line("of low rank but for rounding, as a merged LoRA is: " + std::to_string(low) +
                 " of " + std::to_string(examined) + " differences examined");
}

JsonObject diff_json(const CheckpointDiff& diff) {
  JsonArray changed, blocks, ulps;
  for (const TensorDifference& tensor : diff.changed) changed.push_back(tensor_json(tensor));
  for (const BlockDifference& block : diff.blocks)
    blocks.push_back(JsonObject{{"name", printable(block.name)},
                                {"tensors", block.tensors},
                                {"changed", block.changed},
                                {"elements", block.elements},
                                {"changed_elements", block.changed_elements},
                                {"difference", block.difference},
                                {"norm_a", block.norm_a},
                                {"relative", block.relative},
                                {"max_absolute", block.max_absolute}});
  for (const UlpHistogram& histogram : diff.ulps) ulps.push_back(ulps_json(histogram));
  return {{"kind", "checkpoints"},
          {"equal", diff.is_equal()},
          {"only_in_a", names_json(diff.only_in_a)},
          {"only_in_b", names_json(diff.only_in_b)},
          {"changed", std::move(changed)},
          {"equal_tensors", diff.equal},
          {"blocks", std::move(blocks)},
          {"ulps", std::move(ulps)},
          {"relative_map", heat_map_json(diff.relative_map)}};
}

}  // namespace lora::cli
