#include <ATen/Parallel.h>

#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// Rows are taken a few at a time, so that a loaded vector of the factor serves all of them.
constexpr int kProductRows = 2;
constexpr int kRows = 4;

template <int ranks, int rows>
LORA_INLINE void product_tile(const LowRank& shape, const Bf16* x, const float* factor, float* p) {
  const std::int64_t width = shape.width;
  const std::int64_t body = width / kWideLanes * kWideLanes;
  Wide sums[rows][ranks] = {};
  for (std::int64_t i = 0; i < body; i += kWideLanes) {
    Wide values[rows];
    for (int row = 0; row < rows; ++row) values[row] = load_wide(x + row * width + i);
    for (int rank = 0; rank < ranks; ++rank) {
      const Wide f = load_wide(factor + rank * width + i);
      for (int row = 0; row < rows; ++row) sums[row][rank] += values[row] * f;
    }
  }
  for (int row = 0; row < rows; ++row)
    for (int rank = 0; rank < ranks; ++rank) {
      float sum = sum_wide(sums[row][rank]);
      for (std::int64_t i = body; i < width; ++i)
        sum += load_one(x + row * width + i) * factor[rank * width + i];
      p[row * shape.rank + rank] = sum;
    }
}

// Ranks are taken eight or four at a time: their sums stay in registers.
template <int rows>
LORA_INLINE void product_rows(const LowRank& shape, const Bf16* x, const float* factor, float* p) {
  std::int64_t rank = 0;
  for (; rank + 8 <= shape.rank; rank += 8)
    product_tile<8, rows>(shape, x, factor + rank * shape.width, p + rank);
  for (; rank + 4 <= shape.rank; rank += 4)
    product_tile<4, rows>(shape, x, factor + rank * shape.width, p + rank);
  for (; rank < shape.rank; ++rank)
    product_tile<1, rows>(shape, x, factor + rank * shape.width, p + rank);
}

LORA_KERNEL void product_range(const LowRank& shape, const Bf16* x, const float* factor,
                               std::int64_t begin, std::int64_t end, float* p) {
  std::int64_t row = begin;
  for (; row + kProductRows <= end; row += kProductRows)
    product_rows<kProductRows>(shape, x + row * shape.width, factor, p + row * shape.rank);
  for (; row < end; ++row)
    product_rows<1>(shape, x + row * shape.width, factor, p + row * shape.rank);
}

// All ranks of an element before it is stored: bf16 rounds once.
template <int rows>
LORA_INLINE void add_rows(const LowRank& shape, const float* p, const float* factor, Bf16* y) {
  const std::int64_t width = shape.width;
  const std::int64_t ranks = shape.rank;
  std::int64_t i = 0;
  for (; i + kWideLanes <= width; i += kWideLanes) {
    Wide sums[rows];
    for (int row = 0; row < rows; ++row) sums[row] = load_wide(y + row * width + i);
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const Wide f = load_wide(factor + rank * width + i);
      for (int row = 0; row < rows; ++row) sums[row] += f * p[row * ranks + rank];
    }
    for (int row = 0; row < rows; ++row) store_wide(y + row * width + i, sums[row]);
  }
  for (; i < width; ++i)
    for (int row = 0; row < rows; ++row) {
      float sum = load_one(y + row * width + i);
      for (std::int64_t rank = 0; rank < ranks; ++rank)
        sum += factor[rank * width + i] * p[row * ranks + rank];
      store_one(y + row * width + i, sum);
    }
}

LORA_KERNEL void add_range(const LowRank& shape, const float* p, const float* factor,
                           std::int64_t begin, std::int64_t end, Bf16* y) {
  std::int64_t row = begin;
  for (; row + kRows <= end; row += kRows)
    add_rows<kRows>(shape, p + row * shape.rank, factor, y + row * shape.width);
  for (; row < end; ++row) add_rows<1>(shape, p + row * shape.rank, factor, y + row * shape.width);
}

// The columns begin .. end - 1 of the gradient, from `rows` neighbouring rows.
template <int rows>
LORA_INLINE void gradient_rows(const LowRank& shape, const float* p, const Bf16* x,
                               std::int64_t begin, std::int64_t end, float* gradient) {
  const std::int64_t width = shape.width;
  const std::int64_t ranks = shape.rank;
  std::int64_t i = begin;
  for (; i + kWideLanes <= end; i += kWideLanes) {
    Wide values[rows];
    for (int row = 0; row < rows; ++row) values[row] = load_wide(x + row * width + i);
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      Wide sum = load_wide(gradient + rank * width + i);
      for (int row = 0; row < rows; ++row) sum += values[row] * p[row * ranks + rank];
      store_wide(gradient + rank * width + i, sum);
    }
  }
  for (; i < end; ++i)
    for (std::int64_t rank = 0; rank < ranks; ++rank)
      for (int row = 0; row < rows; ++row)
        gradient[rank * width + i] += load_one(x + row * width + i) * p[row * ranks + rank];
}

LORA_KERNEL void gradient_range(const LowRank& shape, const float* p, const Bf16* x,
                                std::int64_t begin, std::int64_t end, float* gradient) {
  std::int64_t row = 0;
  for (; row + kRows <= shape.rows; row += kRows)
    gradient_rows<kRows>(shape, p + row * shape.rank, x + row * shape.width, begin, end, gradient);
  for (; row < shape.rows; ++row)
    gradient_rows<1>(shape, p + row * shape.rank, x + row * shape.width, begin, end, gradient);
}

// About 32768 multiplications a task.
std::int64_t grain_of(std::int64_t other, const LowRank& shape) {
  return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, other * shape.rank));
}

}  // namespace

void low_rank_product(const LowRank& shape, const Bf16* x, const float* factor, float* p) {
  at::parallel_for(0, shape.rows, grain_of(shape.width, shape),
                   [&](std::int64_t begin, std::int64_t end) {
                     product_range(shape, x, factor, begin, end, p);
                   });
}

void low_rank_add(const LowRank& shape, const float* p, const float* factor, Bf16* y) {
  at::parallel_for(
      0, shape.rows, grain_of(shape.width, shape),
      [&](std::int64_t begin, std::int64_t end) { add_range(shape, p, factor, begin, end, y); });
}

// Threads share out the columns: every sum runs over all rows in their order.
void low_rank_gradient(const LowRank& shape, const float* p, const Bf16* x, float* gradient) {
  const std::int64_t blocks = (shape.width + kWideLanes - 1) / kWideLanes;
  at::parallel_for(0, blocks, grain_of(shape.rows * kWideLanes, shape),
                   [&](std::int64_t begin, std::int64_t end) {
                     gradient_range(shape, p, x, begin * kWideLanes,
                                    std::min(shape.width, end * kWideLanes), gradient);
                   });
}

}  // namespace lora::engine
