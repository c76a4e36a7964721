// Row kernels of the merge replay, chosen at run time by what the processor has.
//
// Every set gives the same bits: a product element is one chain in ascending order whatever the
// width of the registers, and the row operations are element by element. Only the sums of squares
// differ in their last bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "lora/base/dtype.h"

namespace lora::replay {

/// The right factor [rank, columns] of a product as panels of kPanel columns: element (k, j) is at
/// ((j / kPanel) * rank + k) * kPanel + j % kPanel. The last panel is padded with zeros.
inline constexpr std::int64_t kPanel = 16;
struct RightFactor {
  std::int64_t rank = 0, columns = 0;
  std::vector<float> panels;
  float at(std::int64_t k, std::int64_t column) const {
    return panels[static_cast<std::size_t>(((column / kPanel) * rank + k) * kPanel +
                                           column % kPanel)];
  }
};

/// What a row block says about intended and found change. `wanted` is d, `found` is m - w.
struct Sums {
  double wanted = 0;    ///< sum of d^2
  double found = 0;     ///< sum of (m - w)^2
  double overlap = 0;   ///< sum of d (m - w)
  double survived = 0;  ///< sum of d^2 over the elements with m != w
  std::int64_t changed = 0, count = 0;
  void add(const Sums& other);
};

struct Kernels {
  std::string_view name;
  /// out [rows, columns] = left [rows, rank] . right, one chain of fused multiply-adds an element,
  /// ascending in k and restarted every chunk_of(rank) terms.
  void (*multiply)(const float* left, std::int64_t rows, const RightFactor& right, float* out);
  /// Widens n stored values (F32, F16 or BF16, any alignment).
  void (*load)(DType dtype, const std::byte* stored, float* out, std::size_t n);
  /// Rounds n values to what `dtype` can hold, to nearest even; F32 changes nothing.
  void (*round)(DType dtype, float* values, std::size_t n);
  void (*scale)(const float* values, float factor, float* out, std::size_t n);
  void (*add)(float* values, const float* added, std::size_t n);
  /// True when all bits are equal (NaN equals NaN).
  bool (*equal)(const float* a, const float* b, std::size_t n);
  void (*accumulate)(const float* w, const float* m, const float* d, std::size_t n, Sums& sums);
  /// out = rounded(stored + product * scaling) from and to F32 or BF16, and what accumulate would
  /// add for it: all of the above in one pass. False when a value of the row is not finite, which
  /// leaves `out` and `sums` without meaning.
  bool (*merge)(DType from, DType to, const float* product, float scaling, const std::byte* stored,
                std::byte* out, std::size_t n, Sums& sums);
};

/// The sets this processor can run, the plainest first. Never empty.
const std::vector<const Kernels*>& available_kernels();
/// The fastest of them.
const Kernels& best_kernels();

/// Terms of one chain in the matrix product of torch 2.13 on a processor with AVX2, by experiment:
/// all of them up to rank 192, halves (rounded down, a last one of the rest) below 384, then 192.
std::int64_t chunk_of(std::int64_t rank);

/// The same element with the product of every term rounded before it is added, as that library
/// computes matrices with very few rows or columns.
float multiply_separately(const float* left_row, const RightFactor& right, std::int64_t column);

}  // namespace lora::replay
