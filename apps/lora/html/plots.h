// Drawings as SVG text for an HtmlPage, whose style gives them their colours. Every mark carries
// its value as a tooltip.
#pragma once

#include <string>
#include <vector>

namespace lora::cli {

/// A cell a row and column; the darker the larger, on a linear scale from 0 to the largest value.
/// NaN: there is no such cell.
std::string heat_map(const std::vector<std::string>& rows, const std::vector<std::string>& columns,
                     const std::vector<double>& values);

/// Values against their index, with a logarithmic ordinate; values that are not positive end a
/// line.
struct Curve {
  std::string name;
  std::vector<double> values;
  bool is_second = false;  ///< drawn dashed, in the second colour
};
/// With `low` and `high` (as long as each other) a band is drawn behind the curves.
std::string curve_plot(const std::string& title, const std::vector<Curve>& curves,
                       const std::vector<double>& low = {}, const std::vector<double>& high = {});

/// Mean, smallest and largest value at each index of curves that may have different lengths.
struct CurveSummary {
  std::vector<double> mean, low, high;
};
CurveSummary summary_of(const std::vector<const std::vector<double>*>& curves);

/// A bar a label; counts.
std::string bar_plot(const std::string& title, const std::vector<std::string>& labels,
                     const std::vector<double>& values);

/// Counts of the finite values in `bins` equal intervals between the smallest and the largest.
std::string histogram(const std::string& title, const std::vector<double>& values,
                      std::size_t bins = 20);

}  // namespace lora::cli
