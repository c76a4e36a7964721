#include "commands/diff_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lora::cli {
namespace {

constexpr std::size_t kShown = 12;

}  // namespace

std::size_t shown_of(std::size_t count, bool all) { return all ? count : std::min(count, kShown); }

void print_names(const std::string& title, const std::vector<std::string>& names, bool all,
                 Console& console) {
  if (names.empty()) return;
  console.line(title + " (" + std::to_string(names.size()) + "):");
  const std::size_t shown = shown_of(names.size(), all);
  for (std::size_t i = 0; i < shown; ++i) console.line("  " + printable(names[i]));
  if (shown < names.size())
    console.line("  and " + std::to_string(names.size() - shown) + " more (--all)");
}

void print_table(const Table& table, std::size_t shown, std::size_t count, Console& console) {
  for (const std::string& line : table.lines()) console.line(line);
  if (shown < count) console.line("  and " + std::to_string(count - shown) + " more (--all)");
}

std::string ratio_text(double part, double whole) {
  return number_text(whole == 0 ? 0 : part / whole);
}

double sort_key(double relative) {
  return std::isnan(relative) ? std::numeric_limits<double>::infinity() : relative;
}

JsonArray names_json(const std::vector<std::string>& names) {
  JsonArray array;
  for (const std::string& name : names) array.emplace_back(printable(name));
  return array;
}

JsonArray numbers_json(const std::vector<double>& values) {
  JsonArray array;
  for (const double value : values) array.emplace_back(value);
  return array;
}

JsonObject heat_map_json(const HeatMap& map) {
  JsonArray rows;
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    JsonArray cells;
    for (std::size_t column = 0; column < map.columns.size(); ++column) {
      const double value = map.values[row * map.columns.size() + column];
      if (std::isnan(value)) {
        cells.emplace_back(nullptr);
      } else {
        cells.emplace_back(value);
      }
    }
    rows.emplace_back(std::move(cells));
  }
  return {{"layers", names_json(map.rows)},
          {"modules", names_json(map.columns)},
          {"values", std::move(rows)}};
}

}  // namespace lora::cli
