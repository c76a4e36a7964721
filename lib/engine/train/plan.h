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

/// Rough bytes a run needs: frozen weights in the compute dtype, four f32 values a trainable
/// parameter, and the activations one micro-batch of a decoder keeps. An estimate for people, good
/// to a factor of two.
std::int64_t estimate_memory(const TrainOptions& options, std::int64_t trainable_parameters,
                             const DataRows& data);

/// The plan of a dry run as the command line shows it.
JsonObject describe_plan(const TrainOptions& options, const TrainPlan& plan, const DataRows& data,
                         const DataRows* eval, std::int64_t trainable_parameters,
                         std::int64_t total_parameters);

}  // namespace lora::engine
