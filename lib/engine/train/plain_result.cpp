#include "engine/train/plain_result.h"

#include <ATen/ops/cat.h>

#include "engine/bridge.h"
#include "lora/adapter/keys.h"
#include "lora/adapter/strength.h"

namespace lora::engine {

void make_plain(AdapterConfig& config, TensorMap& tensors, const TensorMap& first_factors) {
  for (const auto& [key, first] : first_factors) {
    Tensor& trained = tensors.at(key);
    const at::Tensor now = convert(trained, at::kFloat);
    const at::Tensor then = convert(first, at::kFloat);
    const bool is_a = parse_key(key).role == KeyRole::lora_a;
    trained = to_lora(is_a ? at::cat({now, then}, 0) : at::cat({now, then.neg()}, 1));
  }
  double_ranks(config);
}

}  // namespace lora::engine
