#include <algorithm>
#include <span>
#include <vector>

#include "lora/base/parallel.h"
#include "lora/base/random.h"
#include "ops/fresh_parameters.h"

namespace lora {
namespace {

class ValueSource {
 public:
  ValueSource(const FreshParameter& parameter, std::uint64_t seed)
      : parameter_(parameter), random_(seed, stream_of(parameter.name)) {
    if (parameter.zero_row) {
      const auto width = static_cast<std::uint64_t>(parameter.shape.back());
      first_zero_ = static_cast<std::uint64_t>(*parameter.zero_row) * width;
      last_zero_ = first_zero_ + width;
    }
  }

  float at(std::uint64_t index) const {
    if (index >= first_zero_ && index < last_zero_) return 0;
    switch (parameter_.fill) {
      case FreshParameter::Fill::normal:
        return static_cast<float>(random_.normal(index) * parameter_.scale);
      case FreshParameter::Fill::uniform:
        return static_cast<float>((2 * random_.uniform(index) - 1) * parameter_.scale);
      case FreshParameter::Fill::ones:
        return 1;
      case FreshParameter::Fill::zeros:
        break;
    }
    return 0;
  }

 private:
  const FreshParameter& parameter_;
  CounterRandom random_;
  std::uint64_t first_zero_ = 0;
  std::uint64_t last_zero_ = 0;
};

}  // namespace

Tensor fresh_tensor(const FreshParameter& parameter, DType dtype, std::uint64_t seed, int threads) {
  constexpr std::size_t kChunk = 1 << 14;
  std::size_t count = 1;
  for (const std::int64_t extent : parameter.shape) count *= static_cast<std::size_t>(extent);
  const std::size_t element = bits_of(dtype) / 8;
  std::vector<std::byte> data(count * element);
  const ValueSource values(parameter, seed);
  parallel_for((count + kChunk - 1) / kChunk, threads, [&](std::size_t chunk) {
    const std::size_t first = chunk * kChunk;
    std::vector<float> floats(std::min(kChunk, count - first));
    for (std::size_t i = 0; i < floats.size(); ++i) floats[i] = values.at(first + i);
    narrow(std::span<const float>(floats), dtype, data.data() + first * element);
  });
  return Tensor::from_bytes(dtype, parameter.shape, std::move(data));
}

}  // namespace lora
