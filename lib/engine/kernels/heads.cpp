#include <ATen/Parallel.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector.h"

namespace lora::engine {
namespace {

// direction +1 rotates by the position's angle, -1 back.
LORA_KERNEL void rotate_head(const float* in, const float* cos, const float* sin, float direction,
                             std::int64_t half, float* out) {
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
    const float a = in[i];
    const float b = in[half + i];
    const float s = sin[i] * direction;
    out[i] = a * cos[i] - b * s;
    out[half + i] = b * cos[i] + a * s;
  }
}

void move_heads(const float* in, const HeadShape& shape, const float* cos, const float* sin,
                bool to_heads, float* out) {
  const std::int64_t heads = shape.kv_heads * shape.group;
  at::parallel_for(0, shape.batch * shape.time, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t b = row / shape.time;
      const std::int64_t t = row % shape.time;
      for (std::int64_t head = 0; head < heads; ++head) {
        const std::int64_t kv = head / shape.group;
        const std::int64_t g = head % shape.group;
        const std::int64_t in_rows = (row * heads + head) * shape.dim;
        const std::int64_t in_heads =
            (((b * shape.kv_heads + kv) * shape.time + t) * shape.group + g) * shape.dim;
        const float* source = in + (to_heads ? in_rows : in_heads);
        float* target = out + (to_heads ? in_heads : in_rows);
        if (cos == nullptr) {
          std::memcpy(target, source, static_cast<std::size_t>(shape.dim) * sizeof(float));
        } else {
          const std::int64_t half = shape.dim / 2;
          rotate_head(source, cos + t * half, sin + t * half, to_heads ? 1.0F : -1.0F, half,
                      target);
        }
      }
    }
  });
}

}  // namespace

void split_heads(const float* rows, const HeadShape& shape, const float* cos, const float* sin,
                 float* heads) {
  move_heads(rows, shape, cos, sin, true, heads);
}

void merge_heads(const float* heads, const HeadShape& shape, const float* cos, const float* sin,
                 float* rows) {
  move_heads(heads, shape, cos, sin, false, rows);
}

}  // namespace lora::engine
