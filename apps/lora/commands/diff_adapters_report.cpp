#include <algorithm>

#include "commands/diff_lists.h"
#include "commands/diff_report.h"

namespace lora::cli {
namespace {

void print_fields(const std::vector<FieldDifference>& fields, Console& console) {
  if (fields.empty()) return;
  console.line("configuration (* changes what is computed):");
  Table table({"  field", "A", "B", "changes"});
  for (const FieldDifference& field : fields)
    table.row({(field.effect.empty() ? "  " : "* ") + field.field,
               printable(field.a.empty() ? "(absent)" : field.a),
               printable(field.b.empty() ? "(absent)" : field.b), field.effect});
  print_table(table, fields.size(), fields.size(), console);
}

std::string pair_text(const std::string& x, const std::string& y) {
  return x == y ? x : x + " / " + y;
}

std::string angle_text(const std::vector<double>& angles) {
  if (angles.empty()) return "-";
  return number_text(angles.front(), 3) + " .. " + number_text(angles.back(), 3);
}

// Modules with NaN or infinite values, and on which side.
std::vector<std::string> non_finite(const AdapterDiff& diff) {
  std::vector<std::string> names;
  for (const ModuleDifference& module : diff.modules)
    if (!module.is_finite_a || !module.is_finite_b)
      names.push_back(module.module_path + (module.is_finite_b   ? " (A)"
                                            : module.is_finite_a ? " (B)"
                                                                 : " (A and B)"));
  return names;
}

void print_modules(const AdapterDiff& diff, bool all, Console& console) {
  std::vector<const ModuleDifference*> changed;
  for (const ModuleDifference& module : diff.modules)
    if (!module.has_equal_bytes) changed.push_back(&module);
  console.line("updates: " + std::to_string(changed.size()) + " of " +
               std::to_string(diff.modules.size()) + " common modules differ, |dA - dB| / |dA| = " +
               ratio_text(diff.total_difference, diff.total_norm_a) + ", cosine " +
               number_text(diff.total_cosine, 6));
  if (changed.empty()) return;
  std::stable_sort(changed.begin(), changed.end(), [](const auto* x, const auto* y) {
    return sort_key(x->distance.relative) > sort_key(y->distance.relative);
  });
  Table table({"  module", "rank", "scaling", "|dA|", "|dB|", "relative", "cosine", "output angles",
               "input angles"},
              {false, true, true, true, true, true, true, true, true});
  const std::size_t shown = shown_of(changed.size(), all);
  bool has_direction = false;
  for (std::size_t i = 0; i < shown; ++i) {
    const ModuleDifference& module = *changed[i];
    has_direction = has_direction || module.is_direction;
    table.row({"  " + printable(module.module_path),
               pair_text(std::to_string(module.rank_a), std::to_string(module.rank_b)),
               pair_text(number_text(module.scaling_a), number_text(module.scaling_b)),
               number_text(module.distance.norm_a), number_text(module.distance.norm_b),
               number_text(module.distance.relative), number_text(module.distance.cosine, 6),
               angle_text(module.distance.column_angles), angle_text(module.distance.row_angles)});
  }
  print_table(table, shown, changed.size(), console);
  if (has_direction)
    console.line("  DoRA: figures are those of the directions, before the magnitudes");
}

void print_groups(const std::string& title, const std::vector<GroupDifference>& groups, bool all,
                  Console& console) {
  if (groups.size() < 2) return;
  Table table({"  " + title, "modules", "changed", "|dA|", "|dB|", "relative", "cosine", "angle"},
              {false, true, true, true, true, true, true, true});
  const std::size_t shown = shown_of(groups.size(), all);
  for (std::size_t i = 0; i < shown; ++i) {
    const GroupDifference& group = groups[i];
    table.row({"  " + printable(group.name.empty() ? "(none)" : group.name),
               std::to_string(group.modules), std::to_string(group.changed),
               number_text(group.norm_a), number_text(group.norm_b), number_text(group.relative),
               number_text(group.cosine, 6), number_text(group.largest_angle, 3)});
  }
  print_table(table, shown, groups.size(), console);
}

JsonArray groups_json(const std::vector<GroupDifference>& groups) {
  JsonArray array;
  for (const GroupDifference& group : groups)
    array.push_back(JsonObject{{"name", printable(group.name)},
                               {"modules", group.modules},
                               {"changed", group.changed},
                               {"norm_a", group.norm_a},
                               {"norm_b", group.norm_b},
                               {"difference", group.difference},
                               {"relative", group.relative},
                               {"cosine", group.cosine},
                               {"largest_angle", group.largest_angle}});
  return array;
}

Json module_json(const ModuleDifference& module) {
  const UpdateDistance& distance = module.distance;
  return JsonObject{{"module", printable(module.module_path)},
                    {"rank_a", module.rank_a},
                    {"rank_b", module.rank_b},
                    {"scaling_a", module.scaling_a},
                    {"scaling_b", module.scaling_b},
                    {"norm_a", distance.norm_a},
                    {"norm_b", distance.norm_b},
                    {"difference", distance.difference},
                    {"relative", distance.relative},
                    {"cosine", distance.cosine},
                    {"best_scale", distance.best_scale},
                    {"largest_angle", distance.largest_angle},
                    {"column_angles", numbers_json(distance.column_angles)},
                    {"row_angles", numbers_json(distance.row_angles)},
                    {"singular_values_a", numbers_json(distance.singular_values_a)},
                    {"singular_values_b", numbers_json(distance.singular_values_b)},
                    {"direction_only", module.is_direction},
                    {"finite_a", module.is_finite_a},
                    {"finite_b", module.is_finite_b},
                    {"equal", module.has_equal_bytes}};
}

}  // namespace

void print_diff(const AdapterDiff& diff, bool all, Console& console) {
  if (diff.is_equal()) {
    console.line("equal: " + plural(diff.modules.size(), "module") +
                 ", same configuration, same bytes");
    print_names("values that are not finite", non_finite(diff), all, console);
    return;
  }
  print_fields(diff.fields, console);
  print_names("only in A", diff.only_in_a, all, console);
  print_names("only in B", diff.only_in_b, all, console);
  print_names("saved parameters that differ", diff.changed_replacements, all, console);
  print_names("values that are not finite, so the figures are not either", non_finite(diff), all,
              console);
  print_modules(diff, all, console);
  print_groups("kind", diff.by_leaf, all, console);
  print_groups("layer", diff.by_layer, all, console);
}

JsonObject diff_json(const AdapterDiff& diff) {
  JsonArray fields, modules;
  for (const FieldDifference& field : diff.fields)
    fields.push_back(JsonObject{{"field", field.field},
                                {"a", field.a.empty() ? Json() : parse_json(field.a, field.field)},
                                {"b", field.b.empty() ? Json() : parse_json(field.b, field.field)},
                                {"changes", field.effect.empty() ? Json() : Json(field.effect)}});
  for (const ModuleDifference& module : diff.modules) modules.push_back(module_json(module));
  return {{"kind", "adapters"},
          {"equal", diff.is_equal()},
          {"fields", std::move(fields)},
          {"only_in_a", names_json(diff.only_in_a)},
          {"only_in_b", names_json(diff.only_in_b)},
          {"changed_parameters", names_json(diff.changed_replacements)},
          {"total_difference", diff.total_difference},
          {"total_norm_a", diff.total_norm_a},
          {"total_norm_b", diff.total_norm_b},
          {"total_cosine", diff.total_cosine},
          {"by_kind", groups_json(diff.by_leaf)},
          {"by_layer", groups_json(diff.by_layer)},
          {"relative_map", heat_map_json(diff.relative_map)},
          {"cosine_map", heat_map_json(diff.cosine_map)},
          {"modules", std::move(modules)}};
}

}  // namespace lora::cli
