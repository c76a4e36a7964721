#include "engine/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lora/base/random.h"

namespace lora::engine {

std::int64_t choose_token(const at::Tensor& logits, double temperature, std::uint64_t seed,
                          std::int64_t step) {
  const float* values = logits.const_data_ptr<float>();
  const std::int64_t count = logits.numel();
  const float* best = std::max_element(values, values + count);
  if (temperature <= 0) return best - values;
  std::vector<double> cumulative(static_cast<std::size_t>(count));
  double total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    total += std::exp((static_cast<double>(values[i]) - *best) / temperature);
    cumulative[static_cast<std::size_t>(i)] = total;
  }
  const double point =
      CounterRandom(seed, stream_of("generate")).uniform(static_cast<std::uint64_t>(step)) * total;
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), point);
  return std::min<std::int64_t>(found - cumulative.begin(), count - 1);
}

}  // namespace lora::engine
