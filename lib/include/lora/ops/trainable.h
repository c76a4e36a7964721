// What would train when an adapter is loaded for training: the list that PEFT marks requires_grad.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/dtype.h"

namespace lora {

struct Checkpoint;

struct TrainableParameter {
  std::string name;  ///< peft_key
  std::vector<std::int64_t> shape;
  DType dtype = DType::f32;  ///< while training: 16-bit LoRA factors are widened to F32, as in PEFT
  bool is_in_file = true;    ///< false: a bias of the base that `bias` trains and no file holds
};

/// Sorted by name. Factors, magnitudes, lora_B biases, token rows, parameters (not buffers) of
/// modules_to_save, and the biases that `bias` asks for; not the embeddings that PEFT merely saves
/// along, nor what a variant freezes (B of MiCA).
std::vector<TrainableParameter> trainable_parameters(const Adapter& adapter,
                                                     const Checkpoint& base);

}  // namespace lora
