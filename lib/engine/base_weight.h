// The weight of one layer, found and typed as a model would load it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

/// The type that a model of `compute` holds a matrix of this stored dtype in.
at::ScalarType matrix_type(DType stored, Compute compute);

/// The matrix `module_path`.weight of the base. `purpose` begins the message of
/// Error(incompatible) when the base has no such matrix.
const Tensor& stored_weight(const Checkpoint& base, const std::string& module_path,
                            const std::string& purpose);

/// The matrix `module_path`.weight of the base, as it is stored, in matrix_type. `purpose` begins
/// the message of Error(incompatible) when the base has no such matrix.
at::Tensor base_weight(const Checkpoint& base, const std::string& module_path, Compute compute,
                       const std::string& purpose);

}  // namespace lora::engine
