// What the reports of diff share: shortened lists and tables, arrays of JSON.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/units.h"
#include "lora/format/json.h"
#include "lora/ops/diff.h"

namespace lora::cli {

/// How many of `count` lines to show.
std::size_t shown_of(std::size_t count, bool all);
/// The title and its names, or nothing when there are none.
void print_names(const std::string& title, const std::vector<std::string>& names, bool all,
                 Console& console);
/// The table, and how many of `count` rows it leaves out.
void print_table(const Table& table, std::size_t shown, std::size_t count, Console& console);

/// Part over whole: 0 where nothing is there, "nan" where a value is not finite.
std::string ratio_text(double part, double whole);

/// For lists with the largest first: NaN is the largest.
double sort_key(double relative);

JsonArray names_json(const std::vector<std::string>& names);
JsonArray numbers_json(const std::vector<double>& values);
JsonObject heat_map_json(const HeatMap& map);

}  // namespace lora::cli
