#include "lora/base/random.h"

namespace lora {
namespace {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

}  // namespace

CounterRandom::CounterRandom(std::uint64_t seed, std::uint64_t stream)
    : seed_(seed), stream_(stream) {}

std::array<std::uint32_t, 4> CounterRandom::block(std::uint64_t index) const {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                 static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
}

double CounterRandom::uniform(std::uint64_t index) const {
  const auto words = block(index);
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 21) | (words[1] >> 11);
  return static_cast<double>(bits) * 0x1.0p-53;
}

double CounterRandom::normal(std::uint64_t index) const {
  // Three blocks of four 32-bit words; the sum stays an exact integer below 2^36.
  std::uint64_t sum = 0;
  for (std::uint64_t part = 0; part < 3; ++part)
    for (const std::uint32_t word : block(3 * index + part)) sum += word;
  // Each word counts as (word + 1/2) / 2^32, so the mean is exactly zero.
  return (static_cast<double>(sum) + 6.0) * 0x1.0p-32 - 6.0;
}

std::uint64_t CounterRandom::below(std::uint64_t index, std::uint64_t bound) const {
  const auto words = block(index);
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32) | words[1];
  __extension__ using Wide = unsigned __int128;
  // Multiply-shift: the bias is below 2^-64 * bound, far under anything a shuffle could show.
  return static_cast<std::uint64_t>((static_cast<Wide>(bits) * bound) >> 64);
}

std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : name) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001B3ULL;
  }
  return hash;
}

}  // namespace lora
