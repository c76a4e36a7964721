// Names, shapes and distributions of a model's parameters before training.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/tensor.h"
#include "lora/checkpoint/model_config.h"

namespace lora {

struct FreshParameter {
  enum class Fill { normal, uniform, ones, zeros };
  std::string name;  ///< base_name
  std::vector<std::int64_t> shape;
  Fill fill = Fill::normal;
  double scale = 0;                      ///< normal: standard deviation; uniform: bound
  std::optional<std::int64_t> zero_row;  ///< the padding row of an embedding
};

/// In the order of the model's state dict; a tied output head is left out. Throws
/// Error(unsupported) for a model_type or architecture it does not know, Error(malformed) for wrong
/// fields.
std::vector<FreshParameter> fresh_parameters(const ModelConfig& config, const std::string& context);

/// Values as lora/ops/init_base.h says, on up to `threads` threads.
Tensor fresh_tensor(const FreshParameter& parameter, DType dtype, std::uint64_t seed, int threads);

}  // namespace lora
