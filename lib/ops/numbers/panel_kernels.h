// The product that all algebra on panels is made of, compiled for each level of instructions.
//
// f32, one chain of multiply-adds an element and call. Levels may differ in their last bits.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace lora::numbers {

/// Columns of a panel; rows of a panel are kPanelColumns values apart. Rows come in multiples of
/// kTileRows.
inline constexpr std::size_t kPanelColumns = 32, kTileRows = 8;

enum class Store { set, add, subtract };

/// c [8 rows of a panel, 32] takes the sum over `outer` pieces of left (8 values at a time) times
/// b [depth rows of a panel, 32]. Piece o starts at a + o * a_outer and b + o * b_outer.
struct Tile {
  const float* a = nullptr;
  std::size_t a_outer = 0;
  const float* b = nullptr;
  std::size_t b_outer = 0;
  std::size_t depth = 0, outer = 1;
  float* c = nullptr;
  Store store = Store::set;
};

struct PanelKernels {
  std::string_view name;
  /// Left is 8 rows of a panel: value (i, t) at a[32 i + t].
  void (*rows)(const Tile& tile);
  /// Left is 8 columns of a panel: value (i, t) at a[i + 32 t].
  void (*columns)(const Tile& tile);
  /// Adds p^T q in f64 to sums [32, 32], p and q [count, 32].
  void (*gram)(const float* p, const float* q, std::size_t count, double* sums);
  /// Adds the squares of `count` rows of a panel to sums [32], in f64.
  void (*squares)(const float* p, std::size_t count, double* sums);
};

/// The levels this processor can run, plain code first.
std::vector<PanelKernels> available_panel_kernels();
/// The best of them, or what a test has chosen.
const PanelKernels& panel_kernels();
void choose_panel_kernels(const PanelKernels& level);

}  // namespace lora::numbers
