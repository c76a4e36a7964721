#include <algorithm>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// first and second rounded, side by side in each word.
LORA_KERNEL void pack_two(const float* first, const float* second, std::int64_t columns,
                          Bf16* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    const Words words = rounded_bits(load(first + i)) | (rounded_bits(load(second + i)) << 16);
    std::memcpy(out + 2 * i, &words, sizeof words);
  }
  for (; i < columns; ++i) {
    store_one(out + 2 * i, first[i]);
    store_one(out + 2 * i + 1, second[i]);
  }
}

LORA_KERNEL void pack_last(const float* row, std::int64_t columns, Bf16* out) {
  for (std::int64_t i = 0; i < columns; ++i) {
    store_one(out + 2 * i, row[i]);
    out[2 * i + 1] = {0};
  }
}

}  // namespace

void pack_pairs(const float* x, std::int64_t rows, std::int64_t columns, Bf16* out) {
  std::int64_t row = 0;
  for (; row + 2 <= rows; row += 2)
    pack_two(x + row * columns, x + (row + 1) * columns, columns, out + row * columns);
  if (row < rows) pack_last(x + row * columns, columns, out + row * columns);
}

}  // namespace lora::engine
