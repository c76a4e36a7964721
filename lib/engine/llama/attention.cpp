#include "engine/llama/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>

#include "engine/llama/attention_plan.h"

namespace lora::engine {
namespace {

at::Tensor matrix_of(const at::Tensor& heads, std::int64_t index, std::int64_t rows,
                     std::int64_t dim) {
  return heads.view({-1, rows, dim}).select(0, index);
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
  Scratch(const HeadShape& shape, const AttentionPlan& plan, int count)
      : buffer_(at::empty({count, std::min(plan.queries, shape.time) * shape.group * shape.time},
                          at::kFloat)) {}
  at::Tensor get(int index, const ScoreBlock& block) const {
    const std::int64_t rows = block.queries * block.group;
    return buffer_.select(0, index).narrow(0, 0, rows * block.keys).view({rows, block.keys});
  }

 private:
  at::Tensor buffer_;
};

// Probabilities of a block in matrix 0, with a cap its slopes in matrix 1.
at::Tensor probabilities(const at::Tensor& q, const at::Tensor& k, const ScoreBlock& block,
                         const ScoreRule& rule, const Scratch& scratch) {
  at::Tensor p = scratch.get(0, block);
  at::mm_out(p, q, k.t());
  float* slopes = rule.cap == 0 ? nullptr : scratch.get(1, block).mutable_data_ptr<float>();
  causal_softmax(block, rule, p.mutable_data_ptr<float>(), slopes);
  return p;
}

// target = product, rounded where the target is bf16.
template <typename Product>
void into(at::Tensor target, Product&& product) {
  if (target.scalar_type() == at::kFloat) {
    product(target);
    return;
  }
  at::Tensor wide = at::empty(target.sizes(), at::kFloat);
  product(wide);
  target.copy_(wide);
}

}  // namespace

void attention(const AttentionInput& input, at::Tensor& out) {
  if (has_bf16_attention(input)) return attention_bf16(input, out);
  const HeadShape& shape = input.shape;
  const AttentionPlan plan = plan_attention(shape);
  const at::Tensor all_k = input.k.to(at::kFloat);
  const at::Tensor all_v = input.v.to(at::kFloat);
  const std::int64_t rows = shape.time * shape.group;
  for_each_block(input, plan, [&](std::int64_t index, const ScoreBlock& block) {
    const Scratch scratch(shape, plan, input.rule.cap == 0 ? 1 : 2);
    const at::Tensor q =
        query_rows(matrix_of(input.q, index, rows, shape.dim), block).to(at::kFloat);
    const at::Tensor k = key_rows(matrix_of(all_k, index, shape.time, shape.dim), block);
    const at::Tensor v = key_rows(matrix_of(all_v, index, shape.time, shape.dim), block);
    const at::Tensor p = probabilities(q, k, block, input.rule, scratch);
    into(query_rows(matrix_of(out, index, rows, shape.dim), block),
         [&](at::Tensor& target) { at::mm_out(target, p, v); });
  });
}

void attention_backward(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                        at::Tensor& dk, at::Tensor& dv) {
  if (has_bf16_attention(input)) return attention_backward_bf16(input, g, dq, dk, dv);
  const HeadShape& shape = input.shape;
  const ScoreRule& rule = input.rule;
  const AttentionPlan plan = plan_attention(shape);
  const at::Tensor all_k = input.k.to(at::kFloat);
  const at::Tensor all_v = input.v.to(at::kFloat);
  const std::array<std::int64_t, 4> sizes{plan.deals, plan.matrices, shape.time, shape.dim};
  const at::Tensor k_sums = at::zeros(sizes, at::kFloat);
  const at::Tensor v_sums = at::zeros(sizes, at::kFloat);
  const std::int64_t rows = shape.time * shape.group;
  for_each_deal(input, plan, [&](std::int64_t index, std::int64_t deal, const auto& for_blocks) {
    const at::Tensor keys = matrix_of(all_k, index, shape.time, shape.dim);
    const at::Tensor values = matrix_of(all_v, index, shape.time, shape.dim);
    const at::Tensor k_gradient = k_sums.select(0, deal).select(0, index);
    const at::Tensor v_gradient = v_sums.select(0, deal).select(0, index);
    const Scratch scratch(shape, plan, 3);
    for_blocks([&](const ScoreBlock& block) {
      const auto queries = [&](const at::Tensor& heads) {
        return query_rows(matrix_of(heads, index, rows, shape.dim), block);
      };
      const at::Tensor q = queries(input.q).to(at::kFloat);
      const at::Tensor upper = queries(g).to(at::kFloat);
      const at::Tensor k = key_rows(keys, block);
      const at::Tensor p = probabilities(q, k, block, rule, scratch);
      at::Tensor ds = scratch.get(2, block);
      at::mm_out(ds, upper, key_rows(values, block).t());
      const float* slopes = rule.cap == 0 ? nullptr : scratch.get(1, block).const_data_ptr<float>();
      causal_softmax_backward(block, rule, p.const_data_ptr<float>(), slopes,
                              ds.mutable_data_ptr<float>());
      key_rows(v_gradient, block).addmm_(p.t(), upper);
      key_rows(k_gradient, block).addmm_(ds.t(), q);
      into(queries(dq), [&](at::Tensor& target) { at::mm_out(target, ds, k); });
    });
  });
  dk.copy_(k_sums.sum(0).view(dk.sizes()));
  dv.copy_(v_sums.sum(0).view(dv.sizes()));
}

}  // namespace lora::engine
