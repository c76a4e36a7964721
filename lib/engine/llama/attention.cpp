#include "engine/llama/attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>

namespace lora::engine {
namespace {

constexpr std::int64_t kQueryBlock = 128;

// One matrix of heads: all positions of one key head of one row of the batch, in f32.
struct HeadMatrices {
  at::Tensor q, k, v;  ///< [time * group, dim], [time, dim], [time, dim]
};

at::Tensor matrix(const at::Tensor& heads, std::int64_t index, std::int64_t rows,
                  std::int64_t dim) {
  return heads.view({-1, rows, dim}).select(0, index);
}

HeadMatrices matrices(const AttentionInput& input, std::int64_t index) {
  const HeadShape& shape = input.shape;
  return {matrix(input.q, index, shape.time * shape.group, shape.dim).to(at::kFloat),
          matrix(input.k, index, shape.time, shape.dim).to(at::kFloat),
          matrix(input.v, index, shape.time, shape.dim).to(at::kFloat)};
}

// An f32 matrix to compute in: the target itself, or one that keep() rounds into it.
at::Tensor f32_target(const at::Tensor& target) {
  return target.scalar_type() == at::kFloat ? target : at::zeros(target.sizes(), at::kFloat);
}
void keep(const at::Tensor& computed, const at::Tensor& target) {
  if (!computed.is_same(target)) target.copy_(computed);
}

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

// The queries from `first` on of one matrix, and the keys that any of them sees.
ScoreBlock block_of(const AttentionInput& input, std::int64_t index, std::int64_t first) {
  const HeadShape& shape = input.shape;
  const std::int64_t row = index / shape.kv_heads * shape.time;
  ScoreBlock block;
  block.group = shape.group;
  block.queries = std::min(kQueryBlock, shape.time - first);
  block.first_query = first;
  if (input.key_mask != nullptr) block.key_mask = input.key_mask + row;
  if (input.first_visible != nullptr) {
    block.first_visible = input.first_visible + row;
    block.first_key = block.first_visible[first];
  }
  block.keys = first + block.queries - block.first_key;
  return block;
}

at::Tensor query_rows(const at::Tensor& heads, const ScoreBlock& block) {
  return heads.narrow(0, block.first_query * block.group, block.queries * block.group);
}
at::Tensor key_rows(const at::Tensor& heads, const ScoreBlock& block) {
  return heads.narrow(0, block.first_key, block.keys);
}

// Matrices of scores for one block at a time.
class Scratch {
 public:
  Scratch(const HeadShape& shape, int count)
      : buffer_(at::empty({count, std::min(kQueryBlock, shape.time) * shape.group * shape.time},
                          at::kFloat)) {}
  at::Tensor get(int index, const ScoreBlock& block) const {
    const std::int64_t rows = block.queries * block.group;
    return buffer_.select(0, index).narrow(0, 0, rows * block.keys).view({rows, block.keys});
  }

 private:
  at::Tensor buffer_;
};

// Probabilities of a block in matrix 0, with a cap its slopes in matrix 1.
at::Tensor probabilities(const HeadMatrices& heads, const ScoreBlock& block, const ScoreRule& rule,
                         const Scratch& scratch) {
  at::Tensor p = scratch.get(0, block);
  at::mm_out(p, query_rows(heads.q, block), key_rows(heads.k, block).t());
  float* slopes = rule.cap == 0 ? nullptr : scratch.get(1, block).mutable_data_ptr<float>();
  causal_softmax(block, rule, p.mutable_data_ptr<float>(), slopes);
  return p;
}

}  // namespace

void attention(const AttentionInput& input, at::Tensor& out) {
  const HeadShape& shape = input.shape;
  for_each_matrix(shape.batch * shape.kv_heads, [&](std::int64_t index) {
    const HeadMatrices heads = matrices(input, index);
    const at::Tensor target = matrix(out, index, shape.time * shape.group, shape.dim);
    const at::Tensor result = f32_target(target);
    const Scratch scratch(shape, input.rule.cap == 0 ? 1 : 2);
    for (std::int64_t first = 0; first < shape.time; first += kQueryBlock) {
      const ScoreBlock block = block_of(input, index, first);
      const at::Tensor p = probabilities(heads, block, input.rule, scratch);
      at::Tensor rows = query_rows(result, block);
      at::mm_out(rows, p, key_rows(heads.v, block));
    }
    keep(result, target);
  });
}

void attention_backward(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                        at::Tensor& dk, at::Tensor& dv) {
  const HeadShape& shape = input.shape;
  const ScoreRule& rule = input.rule;
  for_each_matrix(shape.batch * shape.kv_heads, [&](std::int64_t index) {
    const HeadMatrices heads = matrices(input, index);
    const std::int64_t all_rows = shape.time * shape.group;
    const at::Tensor upstream = matrix(g, index, all_rows, shape.dim).to(at::kFloat);
    const std::array<at::Tensor, 3> targets{matrix(dq, index, all_rows, shape.dim),
                                            matrix(dk, index, shape.time, shape.dim),
                                            matrix(dv, index, shape.time, shape.dim)};
    const at::Tensor q_gradient = f32_target(targets[0]);
    const at::Tensor k_gradient = f32_target(targets[1]).zero_();
    const at::Tensor v_gradient = f32_target(targets[2]).zero_();
    const Scratch scratch(shape, 3);
    for (std::int64_t first = 0; first < shape.time; first += kQueryBlock) {
      const ScoreBlock block = block_of(input, index, first);
      const at::Tensor p = probabilities(heads, block, rule, scratch);
      const at::Tensor upper = query_rows(upstream, block);
      at::Tensor ds = scratch.get(2, block);
      at::mm_out(ds, upper, key_rows(heads.v, block).t());
      const float* slopes = rule.cap == 0 ? nullptr : scratch.get(1, block).const_data_ptr<float>();
      causal_softmax_backward(block, rule, p.const_data_ptr<float>(), slopes,
                              ds.mutable_data_ptr<float>());
      key_rows(v_gradient, block).addmm_(p.t(), upper);
      key_rows(k_gradient, block).addmm_(ds.t(), query_rows(heads.q, block));
      at::Tensor q_rows = query_rows(q_gradient, block);
      at::mm_out(q_rows, ds, key_rows(heads.k, block));
    }
    keep(q_gradient, targets[0]);
    keep(k_gradient, targets[1]);
    keep(v_gradient, targets[2]);
  });
}

}  // namespace lora::engine
