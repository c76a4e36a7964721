#include "engine/llama/attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

namespace lora::engine {
namespace {

constexpr std::int64_t kQueryBlock = 128;

// One matrix of heads: all positions of one key head of one row of the batch.
struct HeadMatrices {
  at::Tensor q, k, v;  ///< [time * group, dim], [time, dim], [time, dim]
};

at::Tensor matrix(const at::Tensor& heads, std::int64_t index, std::int64_t rows,
                  std::int64_t dim) {
  return heads.view({-1, rows, dim}).select(0, index);
}

HeadMatrices matrices(const AttentionInput& input, std::int64_t index) {
  const HeadShape& shape = input.shape;
  return {matrix(input.q, index, shape.time * shape.group, shape.dim),
          matrix(input.k, index, shape.time, shape.dim),
          matrix(input.v, index, shape.time, shape.dim)};
}

float scale_of(const HeadShape& shape) { return 1.0F / std::sqrt(static_cast<float>(shape.dim)); }

// Matrices go to threads whole when there are enough of them to keep every thread busy; otherwise
// the products themselves use all threads.
template <typename Body>
void for_each_matrix(std::int64_t count, Body&& body) {
  const std::int64_t threads = at::get_num_threads();
  if (count % threads != 0 && count < 4 * threads) {
    for (std::int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
    const c10::InferenceMode guard;  // thread-local
    for (std::int64_t i = begin; i < end; ++i) body(i);
  });
}

ScoreBlock block_of(const AttentionInput& input, std::int64_t index, std::int64_t first,
                    std::int64_t queries) {
  ScoreBlock block{1, 1, input.shape.group, queries, first + queries, first};
  if (input.key_mask != nullptr)
    block.key_mask = input.key_mask + index / input.shape.kv_heads * input.shape.time;
  return block;
}

// Scores of a block in the front of `buffer`, turned into probabilities.
at::Tensor probabilities(const HeadMatrices& heads, const ScoreBlock& block, float scale,
                         const at::Tensor& buffer) {
  const std::int64_t rows = block.queries * block.group;
  at::Tensor p = buffer.narrow(0, 0, rows * block.keys).view({rows, block.keys});
  const at::Tensor q = heads.q.narrow(0, block.first_query * block.group, rows);
  at::mm_out(p, q, heads.k.narrow(0, 0, block.keys).t());
  causal_softmax(block, scale, p.mutable_data_ptr<float>());
  return p;
}

std::int64_t buffer_size(const HeadShape& shape) {
  return std::min(kQueryBlock, shape.time) * shape.group * shape.time;
}

}  // namespace

void attention(const AttentionInput& input, at::Tensor& out) {
  const HeadShape& shape = input.shape;
  const float scale = scale_of(shape);
  for_each_matrix(shape.batch * shape.kv_heads, [&](std::int64_t index) {
    const HeadMatrices heads = matrices(input, index);
    const at::Tensor result = matrix(out, index, shape.time * shape.group, shape.dim);
    const at::Tensor buffer = at::empty({buffer_size(shape)}, at::kFloat);
    for (std::int64_t first = 0; first < shape.time; first += kQueryBlock) {
      const std::int64_t queries = std::min(kQueryBlock, shape.time - first);
      const ScoreBlock block = block_of(input, index, first, queries);
      const at::Tensor p = probabilities(heads, block, scale, buffer);
      at::Tensor rows = result.narrow(0, first * shape.group, queries * shape.group);
      at::mm_out(rows, p, heads.v.narrow(0, 0, block.keys));
    }
  });
}

void attention_backward(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                        at::Tensor& dk, at::Tensor& dv) {
  const HeadShape& shape = input.shape;
  const float scale = scale_of(shape);
  dk.zero_();
  dv.zero_();
  for_each_matrix(shape.batch * shape.kv_heads, [&](std::int64_t index) {
    const HeadMatrices heads = matrices(input, index);
    const std::int64_t all_rows = shape.time * shape.group;
    const at::Tensor upstream = matrix(g, index, all_rows, shape.dim);
    const at::Tensor q_gradient = matrix(dq, index, all_rows, shape.dim);
    const at::Tensor k_gradient = matrix(dk, index, shape.time, shape.dim);
    const at::Tensor v_gradient = matrix(dv, index, shape.time, shape.dim);
    const at::Tensor p_buffer = at::empty({buffer_size(shape)}, at::kFloat);
    const at::Tensor s_buffer = at::empty({buffer_size(shape)}, at::kFloat);
    for (std::int64_t first = 0; first < shape.time; first += kQueryBlock) {
      const std::int64_t queries = std::min(kQueryBlock, shape.time - first);
      const ScoreBlock block = block_of(input, index, first, queries);
      const std::int64_t rows = queries * shape.group;
      const std::int64_t keys = block.keys;
      const at::Tensor p = probabilities(heads, block, scale, p_buffer);
      const at::Tensor upper = upstream.narrow(0, first * shape.group, rows);
      at::Tensor ds = s_buffer.narrow(0, 0, rows * keys).view({rows, keys});
      at::mm_out(ds, upper, heads.v.narrow(0, 0, keys).t());
      causal_softmax_backward(block, scale, p.const_data_ptr<float>(),
                              ds.mutable_data_ptr<float>());
      v_gradient.narrow(0, 0, keys).addmm_(p.t(), upper);
      k_gradient.narrow(0, 0, keys).addmm_(ds.t(), heads.q.narrow(0, first * shape.group, rows));
      at::Tensor q_rows = q_gradient.narrow(0, first * shape.group, rows);
      at::mm_out(q_rows, ds, heads.k.narrow(0, 0, keys));
    }
  });
}

}  // namespace lora::engine
