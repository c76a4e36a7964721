// The choice of the next token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lora::engine {

/// Greedy (temperature 0: the first of the largest) or sampled with the random number of `step`.
std::int64_t choose_token(const at::Tensor& logits, double temperature, std::uint64_t seed,
                          std::int64_t step);

}  // namespace lora::engine
