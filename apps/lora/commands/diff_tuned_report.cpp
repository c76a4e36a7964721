#include <algorithm>

#include "commands/diff_lists.h"
#include "commands/diff_report.h"

namespace lora::cli {

void print_diff(const TunedDiff& diff, bool all, Console& console) {
  console.line(std::string(diff.is_equal()
                               ? "the same: tuned is the base plus the adapter's update, up to "
                                 "rounding, in "
                               : "tuned is not just the base plus the adapter's update: ") +
               plural(diff.modules.size(), "module"));
  print_names("only in the base", diff.only_in_base, all, console);
  print_names("only in the tuned checkpoint", diff.only_in_tuned, all, console);
  print_names("changed, and not by the adapter", diff.changed_elsewhere, all, console);
  print_names("parameters that the adapter brings and tuned does not hold",
              diff.changed_replacements, all, console);
  std::vector<const TunedModule*> compared;
  std::vector<std::string> others;
  for (const TunedModule& module : diff.modules) {
    if (module.not_compared.empty())
      compared.push_back(&module);
    else
      others.push_back(module.module_path + ": " + module.not_compared);
  }
  print_names("not compared", others, all, console);
  if (compared.empty()) return;
  console.line("|tuned - base - dW| / |dW| = " + ratio_text(diff.difference, diff.update_norm) +
               ", cosine " + number_text(diff.cosine, 6) + ", best scale " +
               number_text(diff.best_scale, 6));
  std::stable_sort(compared.begin(), compared.end(), [](const auto* x, const auto* y) {
    return sort_key(x->relative) > sort_key(y->relative);
  });
  Table table({"  module", "|dW|", "|tuned - base|", "relative", "of it rounding", "cosine",
               "best scale", "relative then"},
              {false, true, true, true, true, true, true, true});
  const std::size_t shown = shown_of(compared.size(), all);
  for (std::size_t i = 0; i < shown; ++i) {
    const TunedModule& module = *compared[i];
    table.row({"  " + printable(module.module_path), number_text(module.update_norm),
               number_text(module.change_norm), number_text(module.relative),
               module.update_norm > 0 ? number_text(module.rounding / module.update_norm) : "",
               number_text(module.cosine, 6), number_text(module.best_scale, 6),
               number_text(module.relative_at_best)});
  }
  print_table(table, shown, compared.size(), console);
}

JsonObject diff_json(const TunedDiff& diff) {
  JsonArray modules;
  for (const TunedModule& module : diff.modules)
    modules.push_back(
        JsonObject{{"module", printable(module.module_path)},
                   {"update_norm", module.update_norm},
                   {"change_norm", module.change_norm},
                   {"difference", module.difference},
                   {"relative", module.relative},
                   {"cosine", module.cosine},
                   {"best_scale", module.best_scale},
                   {"relative_at_best", module.relative_at_best},
                   {"rounding", module.rounding},
                   {"not_compared",
                    module.not_compared.empty() ? Json() : Json(printable(module.not_compared))}});
  return {{"kind", "adapter_and_tuned"},
          {"equal", diff.is_equal()},
          {"update_norm", diff.update_norm},
          {"change_norm", diff.change_norm},
          {"difference", diff.difference},
          {"cosine", diff.cosine},
          {"best_scale", diff.best_scale},
          {"changed_elsewhere", names_json(diff.changed_elsewhere)},
          {"only_in_base", names_json(diff.only_in_base)},
          {"only_in_tuned", names_json(diff.only_in_tuned)},
          {"changed_parameters", names_json(diff.changed_replacements)},
          {"relative_map", heat_map_json(diff.relative_map)},
          {"modules", std::move(modules)}};
}

}  // namespace lora::cli
