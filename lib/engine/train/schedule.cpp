#include "engine/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lora/base/error.h"

namespace lora::engine {

ScheduleKind schedule_from_string(const std::string& name) {
  if (name == "cosine") return ScheduleKind::cosine;
  if (name == "linear") return ScheduleKind::linear;
  if (name == "constant") return ScheduleKind::constant;
  throw Error(ErrorKind::usage,
              "unknown schedule '" + name + "', expected cosine, linear or constant");
}

std::int64_t warmup_steps(double warmup, std::int64_t total_steps) {
  if (!std::isfinite(warmup) || warmup < 0 || warmup > 9e15 ||
      (warmup >= 1 && warmup != std::floor(warmup)))
    throw Error(ErrorKind::usage, "warm-up is " + std::to_string(warmup) +
                                      ", expected a share below 1 or a whole number of steps");
  if (warmup >= 1) return static_cast<std::int64_t>(warmup);
  return static_cast<std::int64_t>(std::ceil(warmup * static_cast<double>(total_steps)));
}

double Schedule::rate(std::int64_t step) const {
  const std::int64_t done = step - 1;
  if (done < warmup)
    return peak *
           (static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, warmup)));
  const auto remaining_span = static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  switch (kind) {
    case ScheduleKind::constant:
      return peak;
    case ScheduleKind::linear:
      return peak * std::max(0.0, static_cast<double>(total - done) / remaining_span);
    case ScheduleKind::cosine:
      break;
  }
  const double progress = static_cast<double>(done - warmup) / remaining_span;
  return peak * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace lora::engine
