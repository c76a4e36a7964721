#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <memory>

#include "engine/llama/attention_plan.h"

namespace lora::engine {
namespace {

namespace blas = at::native::cpublas;
using at::BFloat16;

// Keys are taken in tiles of fixed width: the unit compiles a kernel for every shape it meets.
constexpr std::int64_t kTile = 128;
constexpr std::int64_t kAlignment = 32;

std::int64_t aligned(std::int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }
std::int64_t even(std::int64_t n) { return n + n % 2; }

const BFloat16* in(const at::Tensor& tensor) { return tensor.const_data_ptr<BFloat16>(); }

// The second factor of a product has pairs of neighbouring rows interleaved: [rows / 2, columns,
// 2].

// From m [rows, width] the packed m^T, [width / 2, stride, 2]; columns beyond `rows` become zero.
void pack_transposed(const BFloat16* m, std::int64_t rows, std::int64_t width, std::int64_t stride,
                     BFloat16* packed) {
  for (std::int64_t pair = 0; pair < width / 2; ++pair) {
    BFloat16* out = packed + pair * stride * 2;
    for (std::int64_t row = 0; row < rows; ++row) {
      out[2 * row] = m[row * width + 2 * pair];
      out[2 * row + 1] = m[row * width + 2 * pair + 1];
    }
    std::fill(out + 2 * rows, out + 2 * stride, BFloat16(0));
  }
}

// m^T [width, stride] of m [rows, width]; zero beyond `rows`.
void transpose(const BFloat16* m, std::int64_t rows, std::int64_t width, std::int64_t stride,
               BFloat16* out) {
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t row = 0; row < rows; ++row) out[i * stride + row] = m[row * width + i];
    std::fill(out + i * stride + rows, out + (i + 1) * stride, BFloat16(0));
  }
}

// From m [rows, width] the packed m, [padded / 2, width, 2]; rows beyond `rows` become zero.
void pack(const BFloat16* m, std::int64_t rows, std::int64_t width, std::int64_t padded,
          BFloat16* packed) {
  for (std::int64_t row = 0; row < padded; row += 2) {
    BFloat16* out = packed + row * width;
    const BFloat16* first = row < rows ? m + row * width : nullptr;
    const BFloat16* second = row + 1 < rows ? m + (row + 1) * width : nullptr;
    for (std::int64_t i = 0; i < width; ++i) {
      out[2 * i] = first == nullptr ? BFloat16(0) : first[i];
      out[2 * i + 1] = second == nullptr ? BFloat16(0) : second[i];
    }
  }
}

// All matrices of keys or values, packed as they are or transposed; zero up to `padded` keys.
at::Tensor pack_all(const at::Tensor& heads, const AttentionInput& input, const AttentionPlan& plan,
                    bool is_transposed) {
  const HeadShape& shape = input.shape;
  const std::int64_t padded = aligned(shape.time);
  at::Tensor result = at::empty({plan.matrices, padded * shape.dim}, at::kBFloat16);
  auto* out = result.mutable_data_ptr<BFloat16>();
  for_each_task(plan.matrices, [&](std::int64_t index) {
    const BFloat16* m = in(heads) + index * shape.time * shape.dim;
    BFloat16* target = out + index * padded * shape.dim;
    if (is_transposed)
      pack_transposed(m, shape.time, shape.dim, padded, target);
    else
      pack(m, shape.time, shape.dim, padded, target);
  });
  return result;
}

Bf16* bits(BFloat16* values) { return reinterpret_cast<Bf16*>(values); }

// Memory that is written before it is read.
template <typename T>
class Buffer {
 public:
  T* get(std::int64_t size) {
    if (size > size_) values_ = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(size));
    size_ = std::max(size, size_);
    return values_.get();
  }

 private:
  std::unique_ptr<T[]> values_;
  std::int64_t size_ = 0;
};

// One block's matrices, and the products between them.
class Block {
 public:
  Block(const AttentionInput& input, const AttentionPlan& plan)
      : shape_(input.shape),
        rule_(input.rule),
        padded_(aligned(shape_.time)),
        most_rows_(even(std::min(plan.queries, shape_.time) * shape_.group)) {}

  // Widened to whole tiles, whose further columns the softmax clears.
  void start(const ScoreBlock& block) {
    block_ = block;
    block_.first_key = block.first_key / kAlignment * kAlignment;
    block_.keys = aligned(block.first_key + block.keys - block_.first_key);
    rows_ = block.queries * block.group;
  }
  const ScoreBlock& block() const { return block_; }
  std::int64_t first_row() const { return block_.first_query * block_.group; }

  // [rows, keys] f32 = a [rows, dim] times packed transposed keys or values.
  float* scores(const BFloat16* a, const BFloat16* packed, Buffer<float>& buffer) {
    float* result = buffer.get(most_rows_ * padded_);
    for_tiles([&](std::int64_t tile, std::int64_t width) {
      blas::brgemm(rows_, width, shape_.dim, shape_.dim, padded_, block_.keys, false, a,
                   packed + (block_.first_key + tile) * 2, result + tile);
    });
    return result;
  }
  // probabilities, with a cap also the slopes.
  void softmax(float* p) {
    slopes_ = rule_.cap == 0 ? nullptr : slope_buffer_.get(most_rows_ * padded_);
    causal_softmax(block_, rule_, p, slopes_);
  }
  void softmax_backward(const float* p, float* dp) const {
    causal_softmax_backward(block_, rule_, p, slopes_, dp);
  }
  // out [rows, dim] bf16 = m [rows, keys] times packed keys or values.
  void combine(const float* m, const BFloat16* packed, BFloat16* out) {
    BFloat16* rounded = rounded_.get(most_rows_ * padded_);
    convert_all(m, rows_ * block_.keys, 1, bits(rounded));
    float* sums = sums_.get(most_rows_ * shape_.dim);
    for_tiles([&](std::int64_t tile, std::int64_t width) {
      blas::brgemm(rows_, shape_.dim, width, block_.keys, shape_.dim, shape_.dim, tile > 0,
                   rounded + tile, packed + (block_.first_key + tile) * shape_.dim, sums);
    });
    convert_all(sums, rows_ * shape_.dim, 1, bits(out));
  }
  // sums [dim, padded keys] f32 += a^T [dim, rows] times m [rows, keys].
  void add_transposed(const BFloat16* a, const float* m, float* sums) {
    const std::int64_t padded_rows = even(rows_);
    BFloat16* turned = turned_.get(most_rows_ * shape_.dim);
    transpose(a, rows_, shape_.dim, padded_rows, turned);
    BFloat16* packed = rounded_.get(most_rows_ * padded_);
    pack_pairs(m, rows_, block_.keys, bits(packed));
    for_tiles([&](std::int64_t tile, std::int64_t width) {
      blas::brgemm(shape_.dim, width, padded_rows, padded_rows, block_.keys, padded_, true, turned,
                   packed + tile * 2, sums + block_.first_key + tile);
    });
  }

 private:
  template <typename Body>
  void for_tiles(Body&& body) const {
    for (std::int64_t tile = 0; tile < block_.keys; tile += kTile)
      body(tile, std::min(kTile, block_.keys - tile));
  }

  const HeadShape& shape_;
  ScoreRule rule_;
  std::int64_t padded_, most_rows_;
  ScoreBlock block_;
  std::int64_t rows_ = 0;
  float* slopes_ = nullptr;
  Buffer<float> slope_buffer_, sums_;
  Buffer<BFloat16> rounded_, turned_;
};

}  // namespace

bool has_bf16_attention(const AttentionInput& input) {
  return input.q.scalar_type() == at::kBFloat16 && input.shape.dim % 2 == 0 &&
         blas::could_pack(at::kBFloat16);
}

void attention_bf16(const AttentionInput& input, at::Tensor& out) {
  const HeadShape& shape = input.shape;
  const AttentionPlan plan = plan_attention(shape);
  const at::Tensor keys = pack_all(input.k, input, plan, true);
  const at::Tensor values = pack_all(input.v, input, plan, false);
  const std::int64_t matrix = shape.time * shape.group * shape.dim;
  const std::int64_t packed = keys.size(1);
  auto* target = out.mutable_data_ptr<BFloat16>();
  for_each_block(input, plan, [&](std::int64_t index, const ScoreBlock& part) {
    Block block(input, plan);
    block.start(part);
    const std::int64_t offset = index * matrix + block.first_row() * shape.dim;
    Buffer<float> buffer;
    float* p = block.scores(in(input.q) + offset, in(keys) + index * packed, buffer);
    block.softmax(p);
    block.combine(p, in(values) + index * packed, target + offset);
    blas::brgemm_release();
  });
}

void attention_backward_bf16(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                             at::Tensor& dk, at::Tensor& dv) {
  const HeadShape& shape = input.shape;
  const AttentionPlan plan = plan_attention(shape);
  const at::Tensor keys = pack_all(input.k, input, plan, false);
  const at::Tensor turned_keys = pack_all(input.k, input, plan, true);
  const at::Tensor turned_values = pack_all(input.v, input, plan, true);
  const std::int64_t matrix = shape.time * shape.group * shape.dim;
  const std::int64_t packed = keys.size(1);
  // Transposed, as the products leave them.
  const std::array<std::int64_t, 4> sizes{plan.deals, plan.matrices, shape.dim,
                                          aligned(shape.time)};
  at::Tensor k_sums = at::zeros(sizes, at::kFloat);
  at::Tensor v_sums = at::zeros(sizes, at::kFloat);
  auto* k_gradient = k_sums.mutable_data_ptr<float>();
  auto* v_gradient = v_sums.mutable_data_ptr<float>();
  auto* target = dq.mutable_data_ptr<BFloat16>();
  for_each_deal(input, plan, [&](std::int64_t index, std::int64_t deal, const auto& for_blocks) {
    Block block(input, plan);
    Buffer<float> p_buffer, ds_buffer;
    const std::int64_t sums = (deal * plan.matrices + index) * packed;
    for_blocks([&](const ScoreBlock& part) {
      block.start(part);
      const std::int64_t offset = index * matrix + block.first_row() * shape.dim;
      const BFloat16* q = in(input.q) + offset;
      const BFloat16* upper = in(g) + offset;
      float* p = block.scores(q, in(turned_keys) + index * packed, p_buffer);
      block.softmax(p);
      float* ds = block.scores(upper, in(turned_values) + index * packed, ds_buffer);
      block.softmax_backward(p, ds);
      block.add_transposed(upper, p, v_gradient + sums);
      block.add_transposed(q, ds, k_gradient + sums);
      block.combine(ds, in(keys) + index * packed, target + offset);
    });
    blas::brgemm_release();
  });
  const auto keep = [&](const at::Tensor& parts, at::Tensor& gradient) {
    gradient.view({plan.matrices, shape.time, shape.dim})
        .copy_(parts.sum(0).narrow(2, 0, shape.time).transpose(1, 2));
  };
  keep(k_sums, dk);
  keep(v_sums, dv);
}

}  // namespace lora::engine
