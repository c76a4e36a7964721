// Learning-rate schedules with warm-up, equal to transformers' get_cosine_schedule_with_warmup
// (half a cosine), get_linear_schedule_with_warmup and get_constant_schedule_with_warmup.
#pragma once

#include <cstdint>
#include <string>

namespace lora::engine {

enum class ScheduleKind { cosine, linear, constant };

/// Throws Error(usage) that lists the names there are.
ScheduleKind schedule_from_string(const std::string& name);

/// Steps of warm-up: a share of all steps below 1, rounded up as transformers' TrainingArguments
/// does; a number of steps from 1 on. Throws Error(usage) unless `warmup` is finite, at least 0
/// and, from 1 on, whole.
std::int64_t warmup_steps(double warmup, std::int64_t total_steps);

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0;  ///< learning rate at the end of the warm-up
  std::int64_t warmup = 0;
  std::int64_t total = 0;

  /// Learning rate of step `step`, counted from 1. With warm-up the first step's rate is 0, as in
  /// transformers, whose scheduler counts from 0.
  double rate(std::int64_t step) const;
};

}  // namespace lora::engine
