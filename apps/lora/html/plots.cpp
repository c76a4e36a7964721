#include "html/plots.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "cli/units.h"
#include "html/page.h"

namespace lora::cli {
namespace {

constexpr double kCharacter = 6.2;  // average width of the 11 px font, for margins

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

std::string attribute(const char* name, double value) {
  return std::string(" ") + name + "=\"" + number(value) + "\"";
}

class Drawing {
 public:
  Drawing(double width, double height, std::string_view label) {
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\"" + attribute("width", width) +
           attribute("height", height) + " viewBox=\"0 0 " + number(width) + " " + number(height) +
           "\" aria-label=\"" + escape_html(label) + "\">";
  }
  void text(double x, double y, std::string_view text, const char* anchor = "start",
            const char* style = "") {
    out_ += "<text" + attribute("x", x) + attribute("y", y) + " text-anchor=\"" + anchor +
            "\" class=\"" + style + "\">" + escape_html(text) + "</text>";
  }
  void upright_text(double x, double y, std::string_view text) {
    out_ += "<text transform=\"translate(" + number(x) + " " + number(y) + ") rotate(-60)\">" +
            escape_html(text) + "</text>";
  }
  void rectangle(double x, double y, double width, double height, const char* style,
                 std::string_view tooltip, double opacity = 1) {
    char shade[32];
    std::snprintf(shade, sizeof(shade), "%.3f", opacity);
    out_ += "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", width) +
            attribute("height", height) + " class=\"" + style + "\" fill-opacity=\"" + shade +
            "\"><title>" + escape_html(tooltip) + "</title></rect>";
  }
  void path(const std::string& points, const char* style, std::string_view tooltip = {}) {
    if (points.empty()) return;
    out_ += "<path d=\"" + points + "\" class=\"" + style + "\"><title>" + escape_html(tooltip) +
            "</title></path>";
  }
  std::string finish() { return out_ + "</svg>"; }

 private:
  std::string out_;
};

double longest(const std::vector<std::string>& labels) {
  std::size_t characters = 1;
  for (const std::string& label : labels) characters = std::max(characters, label.size());
  return static_cast<double>(std::min<std::size_t>(characters, 28)) * kCharacter;
}

// Where values of several curves go in a frame with a logarithmic ordinate.
struct LogFrame {
  double left = 46, top = 22, width = 190, height = 110;
  double low = std::numeric_limits<double>::infinity(), high = 0;
  std::size_t count = 1;

  void include(const std::vector<double>& values) {
    count = std::max(count, values.size());
    for (const double value : values) {
      if (!(value > 0) || !std::isfinite(value)) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  // Rounding leaves singular values far below the largest that mean nothing: not more than twelve
  // decades are shown.
  void settle() {
    if (high <= 0) low = high = 1;
    low = std::max(low, high * 1e-12);
    if (low == high) low = high / 10;
  }
  double x(std::size_t i) const {
    return left + (count > 1 ? width * static_cast<double>(i) / static_cast<double>(count - 1) : 0);
  }
  double y(double value) const {
    const double share = std::log(std::max(value, low) / low) / std::log(high / low);
    return top + height * (1 - share);
  }
  std::string line(const std::vector<double>& values) const {
    std::string points;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] > 0) || !std::isfinite(values[i])) break;
      points += (i == 0 ? "M" : " L") + number(x(i)) + " " + number(y(values[i]));
    }
    return points;
  }
};

}  // namespace

std::string heat_map(const std::vector<std::string>& rows, const std::vector<std::string>& columns,
                     const std::vector<double>& values) {
  constexpr double kWide = 46;
  constexpr double kHigh = 14;
  const double left = longest(rows) + 8;
  const double top = longest(columns) * 0.87 + 12;
  double largest = 0;
  for (const double value : values)
    if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
  const double width = left + kWide * static_cast<double>(columns.size()) + 40;
  const double height = top + kHigh * static_cast<double>(rows.size()) + 26;
  Drawing drawing(width, height, "heat map of layers and modules");
  for (std::size_t c = 0; c < columns.size(); ++c)
    drawing.upright_text(left + kWide * (static_cast<double>(c) + 0.45), top - 6, columns[c]);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const double y = top + kHigh * static_cast<double>(r);
    drawing.text(left - 6, y + kHigh - 3, rows[r], "end", "dim");
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const double value = values[r * columns.size() + c];
      const double x = left + kWide * static_cast<double>(c);
      if (std::isnan(value)) {
        drawing.rectangle(x, y, kWide - 1, kHigh - 1, "none",
                          rows[r] + " " + columns[c] + ": none");
        continue;
      }
      const double share = largest > 0 ? std::min(1.0, std::fabs(value) / largest) : 0;
      drawing.rectangle(x, y, kWide - 1, kHigh - 1, "cell",
                        rows[r] + " " + columns[c] + ": " + number_text(value),
                        0.06 + 0.94 * share);
    }
  }
  drawing.text(left, height - 8, "0 (pale) to " + number_text(largest), "start", "dim");
  return drawing.finish();
}

std::string curve_plot(const std::string& title, const std::vector<Curve>& curves,
                       const std::vector<double>& low, const std::vector<double>& high) {
  LogFrame frame;
  for (const Curve& curve : curves) frame.include(curve.values);
  frame.include(low);
  frame.include(high);
  frame.settle();
  const double bottom = frame.top + frame.height;
  Drawing drawing(frame.left + frame.width + 12, bottom + 20, title);
  drawing.text(frame.left, 13, title);
  drawing.path("M" + number(frame.left) + " " + number(frame.top) + " V" + number(bottom) + " H" +
                   number(frame.left + frame.width),
               "axis");
  drawing.text(frame.left - 4, frame.top + 8, number_text(frame.high, 2), "end", "dim");
  drawing.text(frame.left - 4, bottom, number_text(frame.low, 2), "end", "dim");
  drawing.text(frame.left, bottom + 14, "1", "start", "dim");
  drawing.text(frame.left + frame.width, bottom + 14, std::to_string(frame.count), "end", "dim");
  std::string band = frame.line(high);
  std::vector<double> floor;
  for (const double value : low) floor.push_back(std::max(value, frame.low));
  for (std::size_t i = floor.size(); i-- > 0 && !band.empty();)
    band += " L" + number(frame.x(i)) + " " + number(frame.y(floor[i]));
  drawing.path(band, "band", "smallest to largest");
  for (const Curve& curve : curves)
    drawing.path(frame.line(curve.values), curve.is_second ? "b" : "a", curve.name);
  return drawing.finish();
}

CurveSummary summary_of(const std::vector<const std::vector<double>*>& curves) {
  std::size_t length = 0;
  for (const auto* curve : curves) length = std::max(length, curve->size());
  CurveSummary summary{std::vector<double>(length),
                       std::vector<double>(length, std::numeric_limits<double>::infinity()),
                       std::vector<double>(length)};
  for (std::size_t i = 0; i < length; ++i) {
    double count = 0;
    for (const auto* curve : curves) {
      if (i >= curve->size()) continue;
      const double value = (*curve)[i];
      summary.mean[i] += value;
      summary.low[i] = std::min(summary.low[i], value);
      summary.high[i] = std::max(summary.high[i], value);
      count += 1;
    }
    summary.mean[i] /= count;
  }
  return summary;
}

std::string bar_plot(const std::string& title, const std::vector<std::string>& labels,
                     const std::vector<double>& values) {
  constexpr double kHigh = 16;
  constexpr double kLongest = 260;
  const double left = longest(labels) + 8;
  double largest = 0;
  for (const double value : values) largest = std::max(largest, value);
  Drawing drawing(left + kLongest + 110, 22 + kHigh * static_cast<double>(labels.size()) + 4,
                  title);
  drawing.text(0, 13, title);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double y = 22 + kHigh * static_cast<double>(i);
    const double length = largest > 0 ? kLongest * values[i] / largest : 0;
    const std::string text = values[i] == std::floor(values[i]) && values[i] < 1e15
                                 ? count_text(static_cast<std::uint64_t>(values[i]))
                                 : number_text(values[i]);
    drawing.text(left - 6, y + kHigh - 5, labels[i], "end", "dim");
    drawing.rectangle(left, y + 1, length, kHigh - 4, "bar", labels[i] + ": " + text);
    drawing.text(left + length + 5, y + kHigh - 5, text, "start", "dim");
  }
  return drawing.finish();
}

std::string histogram(const std::string& title, const std::vector<double>& values,
                      std::size_t bins) {
  std::vector<double> finite;
  for (const double value : values)
    if (std::isfinite(value)) finite.push_back(value);
  if (finite.empty()) return bar_plot(title, {}, {});
  const auto [smallest, largest] = std::minmax_element(finite.begin(), finite.end());
  const double width = (*largest - *smallest) / static_cast<double>(bins);
  if (!(width > 0))
    return bar_plot(title, {number_text(*smallest, 3)}, {static_cast<double>(finite.size())});
  std::vector<double> counts(bins);
  std::vector<std::string> labels;
  for (std::size_t i = 0; i < bins; ++i)
    labels.push_back("from " + number_text(*smallest + width * static_cast<double>(i), 3));
  for (const double value : finite) {
    const auto bin = static_cast<std::size_t>((value - *smallest) / width);
    counts[std::min(bin, bins - 1)] += 1;
  }
  return bar_plot(title, labels, counts);
}

}  // namespace lora::cli
