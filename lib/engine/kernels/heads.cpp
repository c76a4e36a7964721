#include <ATen/Parallel.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// direction +1 rotates by the position's angle, -1 back.
template <typename T>
LORA_KERNEL void rotate_head(const T* in, const float* cos, const float* sin, float direction,
                             std::int64_t half, T* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Floats a = load(in + i);
    const Floats b = load(in + half + i);
    const Floats c = load(cos + i);
    const Floats s = load(sin + i) * direction;
    store(out + i, a * c - b * s);
    store(out + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = load_one(in + i);
    const float b = load_one(in + half + i);
    const float s = sin[i] * direction;
    store_one(out + i, a * cos[i] - b * s);
    store_one(out + half + i, b * cos[i] + a * s);
  }
}

// Calls body(row of the matrix, position, offset in `rows`, offset in `heads`) for every head.
template <typename Body>
void for_heads(const HeadShape& shape, const Rotation& rotation, Body&& body) {
  const std::int64_t heads = shape.kv_heads * shape.group;
  const std::int64_t stride = shape.stride == 0 ? heads * shape.dim : shape.stride;
  at::parallel_for(0, shape.batch * shape.time, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t b = row / shape.time;
      const std::int64_t t = row % shape.time;
      const std::int64_t position = rotation.positions == nullptr ? t : rotation.positions[row];
      for (std::int64_t head = 0; head < heads; ++head) {
        const std::int64_t kv = head / shape.group;
        const std::int64_t g = head % shape.group;
        body(position, row * stride + head * shape.dim,
             (((b * shape.kv_heads + kv) * shape.time + t) * shape.group + g) * shape.dim);
      }
    }
  });
}

template <typename T>
void move_head(const T* in, std::int64_t dim, const Rotation& rotation, std::int64_t position,
               float direction, T* out) {
  const std::int64_t half = rotation.half;
  if (half > 0)
    rotate_head(in, rotation.cos + position * half, rotation.sin + position * half, direction, half,
                out);
  if (2 * half < dim)
    std::memcpy(out + 2 * half, in + 2 * half,
                static_cast<std::size_t>(dim - 2 * half) * sizeof(T));
}

}  // namespace

template <typename T>
void split_heads(const T* rows, const HeadShape& shape, const Rotation& rotation, T* heads) {
  for_heads(shape, rotation,
            [&](std::int64_t position, std::int64_t in_rows, std::int64_t in_heads) {
              move_head(rows + in_rows, shape.dim, rotation, position, 1, heads + in_heads);
            });
}

template <typename T>
void merge_heads(const T* heads, const HeadShape& shape, const Rotation& rotation, T* rows) {
  for_heads(shape, rotation,
            [&](std::int64_t position, std::int64_t in_rows, std::int64_t in_heads) {
              move_head(heads + in_heads, shape.dim, rotation, position, -1, rows + in_rows);
            });
}

template void split_heads(const float*, const HeadShape&, const Rotation&, float*);
template void split_heads(const Bf16*, const HeadShape&, const Rotation&, Bf16*);
template void merge_heads(const float*, const HeadShape&, const Rotation&, float*);
template void merge_heads(const Bf16*, const HeadShape&, const Rotation&, Bf16*);

}  // namespace lora::engine
