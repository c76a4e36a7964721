#include "engine/train/plain_result.h"

#include <ATen/ops/cat.h>

#include <cmath>

#include "engine/bridge.h"
#include "lora/adapter/keys.h"

namespace lora::engine {

void make_plain(AdapterConfig& config, TensorMap& tensors, const TensorMap& first_factors) {
  for (const auto& [key, first] : first_factors) {
    Tensor& trained = tensors.at(key);
    const at::Tensor now = convert(trained, at::kFloat);
    const at::Tensor then = convert(first, at::kFloat);
    const bool is_a = parse_key(key).role == KeyRole::lora_a;
    trained = to_lora(is_a ? at::cat({now, then}, 0) : at::cat({now, then.neg()}, 1));
  }
  // alpha / r and alpha / sqrt(r) stay what they were.
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;
  config.rank *= 2;
  config.alpha *= factor;
  for (auto& [pattern, rank] : config.rank_pattern) rank *= 2;
  for (auto& [pattern, alpha] : config.alpha_pattern) alpha *= factor;
  config.init_lora_weights = true;
}

}  // namespace lora::engine
