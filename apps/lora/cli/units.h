// Figures for people: sizes, counts, durations, and aligned tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lora::cli {

std::string bytes_text(std::uint64_t bytes);            ///< "270.2 MB" (powers of ten)
std::string count_text(std::uint64_t count);            ///< "134,515,008"
std::string duration_text(double seconds);              ///< "42 s", "3 min 05 s", "2 h 10 min"
std::string number_text(double value, int digits = 4);  ///< "0.0123", significant digits
std::string percent_text(double share, int digits);     ///< "12.3 %", significant digits
std::string plural(std::uint64_t count, const std::string& noun);  ///< "1 tensor", "2 tensors"

/// Rows of cells as aligned columns, two spaces apart; columns named in `right` are right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> header, std::vector<bool> right = {});
  void row(std::vector<std::string> cells);
  /// One string a line, the header first.
  std::vector<std::string> lines() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> right_;
};

}  // namespace lora::cli
