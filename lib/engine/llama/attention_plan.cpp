#include "engine/llama/attention_plan.h"

#include <algorithm>

namespace lora::engine {
namespace {

// Scores of a block of queries are about this many, so that two such matrices stay in the cache.
constexpr std::int64_t kScores = std::int64_t{1} << 17;
constexpr std::int64_t kFewestQueries = 16;
constexpr std::int64_t kMostQueries = 128;
constexpr std::int64_t kMostDeals = 4;
constexpr std::int64_t kEnoughTasks = 16;

}  // namespace

AttentionPlan plan_attention(const HeadShape& shape) {
  AttentionPlan plan;
  plan.matrices = shape.batch * shape.kv_heads;
  const std::int64_t wanted = kScores / std::max<std::int64_t>(1, shape.group * shape.time);
  plan.queries = std::clamp(wanted / 16 * 16, kFewestQueries, kMostQueries);
  plan.blocks = (shape.time + plan.queries - 1) / plan.queries;
  plan.deals = std::clamp<std::int64_t>(kEnoughTasks / std::max<std::int64_t>(1, plan.matrices), 1,
                                        std::min(kMostDeals, plan.blocks));
  return plan;
}

ScoreBlock attention_block(const AttentionInput& input, const AttentionPlan& plan,
                           std::int64_t matrix, std::int64_t number) {
  const HeadShape& shape = input.shape;
  const std::int64_t row = matrix / shape.kv_heads * shape.time;
  ScoreBlock block;
  block.group = shape.group;
  block.first_query = number * plan.queries;
  block.queries = std::min(plan.queries, shape.time - block.first_query);
  if (input.key_mask != nullptr) block.key_mask = input.key_mask + row;
  if (input.first_visible != nullptr) {
    block.first_visible = input.first_visible + row;
    block.first_key = block.first_visible[block.first_query];
  }
  block.keys = block.first_query + block.queries - block.first_key;
  return block;
}

}  // namespace lora::engine
