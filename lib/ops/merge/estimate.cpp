#include <chrono>

#include "lora/base/sha256.h"
#include "ops/merge/writer.h"

namespace lora::merging {
namespace {

using replay::Target;

// Enough for the clock, and not long to wait for.
constexpr std::uint64_t kSampleBytes = 48 << 20;

std::uint64_t bytes_of(const Target& target) {
  return static_cast<std::uint64_t>(target.merged.numel()) * bits_of(target.merged.dtype) / 8;
}

}  // namespace

double estimate_seconds(const std::vector<Target>& targets, const WriterOptions& options) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double estimate = 0;
  for (const bool is_copied : {false, true}) {
    std::uint64_t all = 0, sampled = 0;
    double seconds = 0;
    for (const Target& target : targets) {
      if (target.is_copy() != is_copied) continue;
      all += bytes_of(target);
      if (sampled >= kSampleBytes) continue;
      sampled += bytes_of(target);
      const auto start = Clock::now();
      write_target(target, options,
                   {[](std::span<const std::byte> bytes) { Sha256().update(bytes); }});
      seconds += since(start);
    }
    if (sampled == 0) continue;
    estimate += seconds * static_cast<double>(all) / static_cast<double>(sampled);
  }
  return estimate;
}

}  // namespace lora::merging
