// How the work of an attention call is cut up and dealt to threads.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <atomic>
#include <cstdint>

#include "engine/llama/attention.h"

namespace lora::engine {

struct AttentionPlan {
  std::int64_t matrices = 0;  ///< one for each key head of each row
  std::int64_t queries = 0;   ///< of a block
  std::int64_t blocks = 0;    ///< of a matrix
  /// Tasks that share the blocks of a matrix in the backward pass, each with sums of its own for
  /// the gradients of keys and values. A function of the shape only: the number of threads must not
  /// change results.
  std::int64_t deals = 0;
};

AttentionPlan plan_attention(const HeadShape& shape);

/// The queries of block `number` of a matrix, and the keys that any of them sees.
ScoreBlock attention_block(const AttentionInput& input, const AttentionPlan& plan,
                           std::int64_t matrix, std::int64_t number);

/// Runs body(task) for every task on all threads, each taking the next one when it is free.
template <typename Body>
void for_each_task(std::int64_t count, Body&& body) {
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](std::int64_t begin, std::int64_t end) {
    const c10::InferenceMode guard;  // thread-local
    for (std::int64_t worker = begin; worker < end; ++worker)
      for (std::int64_t task = next++; task < count; task = next++) body(task);
  });
}

/// Forward: body(matrix, block) for all blocks. The last ones see most and come first, so that no
/// thread starts a long one at the end.
template <typename Body>
void for_each_block(const AttentionInput& input, const AttentionPlan& plan, Body&& body) {
  for_each_task(plan.matrices * plan.blocks, [&](std::int64_t task) {
    const std::int64_t matrix = task % plan.matrices;
    body(matrix, attention_block(input, plan, matrix, plan.blocks - 1 - task / plan.matrices));
  });
}

/// Backward: body(matrix, deal, for_blocks), where for_blocks(each) calls each(block) for the
/// deal's blocks in their order.
template <typename Body>
void for_each_deal(const AttentionInput& input, const AttentionPlan& plan, Body&& body) {
  for_each_task(plan.matrices * plan.deals, [&](std::int64_t task) {
    const std::int64_t matrix = task % plan.matrices;
    const std::int64_t deal = task / plan.matrices;
    body(matrix, deal, [&](auto&& each) {
      for (std::int64_t number = deal; number < plan.blocks; number += plan.deals)
        each(attention_block(input, plan, matrix, number));
    });
  });
}

/// The same two functions with bf16 matrix units, for bf16 heads; scores, probabilities' sums and
/// gradients' sums are f32, the factors of products bf16.
bool has_bf16_attention(const AttentionInput& input);
void attention_bf16(const AttentionInput& input, at::Tensor& out);
void attention_backward_bf16(const AttentionInput& input, const at::Tensor& g, at::Tensor& dq,
                             at::Tensor& dk, at::Tensor& dv);

}  // namespace lora::engine
