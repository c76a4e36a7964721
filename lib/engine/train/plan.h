// What a run will do, worked out before it starts.
#pragma once

#include <cstdint>

#include "engine/train/data_rows.h"
#include "engine/train/schedule.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

struct TrainPlan {
  std::int64_t total_steps = 0;
  std::int64_t save_every = 0;  ///< at least 1
  Schedule schedule;
};

/// The order in which a run visits the rows of its data.
BatchPlan plan_batches(const TrainOptions& options, const DataRows& data);

/// Steps as given, or enough to see every example `epochs` (default 3) times, rounded up.
TrainPlan make_plan(const TrainOptions& options, const DataRows& data);

/// Tokens of the longest row; 1 for tables.
std::int64_t longest_row(const DataRows& data);

/// The plan of a dry run as the command line shows it; `memory_bytes` is the estimate.
JsonObject describe_plan(const TrainOptions& options, const TrainPlan& plan, const DataRows& data,
                         const DataRows* eval, std::int64_t trainable_parameters,
                         std::int64_t total_parameters, std::int64_t memory_bytes);

}  // namespace lora::engine
