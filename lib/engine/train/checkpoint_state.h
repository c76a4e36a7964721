// state.safetensors of a training checkpoint: what the adapter file beside it cannot hold.
//
// Tensors, all F32 with the parameter's shape:
//   exp_avg.<peft_key>, exp_avg_sq.<peft_key>   optimizer moments
//   master.<peft_key>                           values, where the adapter file rounds them
//   best.<peft_key>                             values of the best evaluation (early stopping)
// The one metadata key `lora_train_state` holds the numbers of RunState as JSON. Random numbers are
// functions of seed, step and index (lora/base/random.h), and the data position is a function of
// the step, so neither needs a state of its own.
#pragma once

#include <filesystem>

#include "engine/model.h"
#include "engine/train/optimizer.h"
#include "engine/train/run_state.h"
#include "lora/base/atomic_write.h"

namespace lora::engine {

inline constexpr const char* kStateName = "state.safetensors";

/// Adds state.safetensors to a checkpoint under construction. `first_factors`: see ModelOptions;
/// empty for an adapter that leaves the base alone.
void write_state(AtomicDirectory& directory, const FlatParameters& parameters, AdamW& optimizer,
                 const RunState& state, const TensorMap& first_factors);

/// The first factors that a checkpoint holds.
TensorMap read_first_factors(const std::filesystem::path& checkpoint);

/// Numbers only: enough to know where a checkpoint stands.
RunState read_run_state(const std::filesystem::path& checkpoint);

/// Fills moments and masters from a checkpoint. The other values must have come from the adapter
/// file beside it. Throws Error(malformed) naming the tensor that is missing or misshaped.
RunState restore_state(const std::filesystem::path& checkpoint, FlatParameters& parameters,
                       AdamW& optimizer);

/// The piece of a flat buffer that belongs to one parameter, as an F32 tensor on the heap.
Tensor slice_of(const at::Tensor& flat, const TrainableParameter& parameter);

/// All parameters as they go into the adapter file: by peft_key, in their saved dtypes.
TensorMap saved_tensors(const at::Tensor& flat, const FlatParameters& parameters);

}  // namespace lora::engine
