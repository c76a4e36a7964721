// The factors of one module's difference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/dtype.h"
#include "lora/base/tensor.h"
#include "ops/extract/work_space.h"
#include "ops/numbers/truncate.h"

namespace lora::extraction {

/// How a rank is chosen; one of the two. Both are capped by the full rank.
struct RankWish {
  std::optional<std::int64_t> rank;
  std::optional<double> energy;
};

struct Factors {
  Tensor a, b;  ///< [rank, in], [out, rank]
  std::int64_t rank = 0, full_rank = 0;
  double squared_norm = 0, squared_error = 0, least_squared_error = 0;
  bool is_exact = false, is_rounding = false;
};

/// Two tensors of one shape: [out, in], or [in, out] where `is_in_out`. The factors are rounded to
/// `dtype` before the error is measured. A rank of 0 means equal values. Throws Error(malformed)
/// naming the tensor and the side when a value is not finite. Waits for its part of `space`.
Factors factor(const std::string& name, const Tensor& base, const Tensor& tuned,
               const RankWish& wish, bool is_in_out, DType dtype, WorkSpace& space);

/// Squares of at least the `count` largest singular values of the difference, all of them where
/// that is as cheap.
std::vector<double> spectrum(const std::string& name, const Tensor& base, const Tensor& tuned,
                             std::int64_t count, WorkSpace& space);

/// Bytes that both work in at first, with a rank that may turn out to be too small.
std::uint64_t first_work_space(const Tensor& matrix, std::optional<std::int64_t> rank);

}  // namespace lora::extraction
