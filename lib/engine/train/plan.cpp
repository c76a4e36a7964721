#include "engine/train/plan.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "lora/base/error.h"

namespace lora::engine {
namespace {

constexpr double kDefaultEpochs = 3;
constexpr std::int64_t kSavesPerRun = 10;

std::int64_t steps_for(const TrainOptions& options, const DataRows& data) {
  if (options.steps) return *options.steps;
  const auto count =
      plan_batches(options, data).batches_for(options.epochs.value_or(kDefaultEpochs));
  const auto accum = static_cast<std::uint64_t>(options.grad_accum);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>((count + accum - 1) / accum));
}

}  // namespace

BatchPlan plan_batches(const TrainOptions& options, const DataRows& data) {
  BatchPlan plan(data.size(), static_cast<std::size_t>(options.batch_size), options.seed,
                 options.shuffle);
  if (options.group_by_length) {
    std::vector<std::int64_t> lengths;
    for (std::size_t row = 0; row < data.size(); ++row) lengths.push_back(data.length(row));
    plan.group_by_length(std::move(lengths));
  }
  return plan;
}

TrainPlan make_plan(const TrainOptions& options, const DataRows& data) {
  TrainPlan plan;
  plan.total_steps = steps_for(options, data);
  plan.save_every = options.save_every > 0
                        ? options.save_every
                        : std::max<std::int64_t>(1, plan.total_steps / kSavesPerRun);
  plan.schedule = {schedule_from_string(options.schedule), options.lr,
                   warmup_steps(options.warmup, plan.total_steps), plan.total_steps};
  return plan;
}

std::int64_t longest_row(const DataRows& data) {
  std::int64_t longest = 0;
  if (data.examples().is_tabular) return 1;
  for (std::size_t i = 0; i < data.size(); ++i) longest = std::max(longest, data.length(i));
  return longest;
}

JsonObject describe_plan(const TrainOptions& options, const TrainPlan& plan_of_run,
                         const DataRows& data, const DataRows* eval,
                         std::int64_t trainable_parameters, std::int64_t total_parameters,
                         std::int64_t memory_bytes) {
  const Dataset& set = data.examples();
  const auto examples = static_cast<std::int64_t>(set.size());
  const double rows = static_cast<double>(data.size());
  const std::int64_t rows_per_step = options.batch_size * options.grad_accum;
  JsonObject plan{{"steps", plan_of_run.total_steps},
                  {"examples", examples},
                  {"examples_per_step", rows_per_step},
                  {"epochs", static_cast<double>(plan_of_run.total_steps * rows_per_step) / rows},
                  {"data_tokens", set.is_tabular ? examples : set.total_tokens},
                  {"supervised_tokens", set.is_tabular ? examples : set.supervised_tokens},
                  {"eval_examples", eval ? static_cast<std::int64_t>(eval->examples().size()) : 0},
                  {"warmup_steps", plan_of_run.schedule.warmup},
                  {"save_every", plan_of_run.save_every},
                  {"trainable_parameters", trainable_parameters},
                  {"total_parameters", total_parameters},
                  {"memory_bytes_estimate", memory_bytes}};
  if (data.is_packed()) {
    plan["examples_per_step"] = static_cast<double>(rows_per_step * examples) / rows;
    plan["rows"] = static_cast<std::int64_t>(data.size());
    plan["rows_per_step"] = rows_per_step;
    plan["fill"] = data.fill();
  }
  return plan;
}

}  // namespace lora::engine
