// Values that no merge may take in.
#pragma once

#include <span>

#include "lora/adapter/adapter.h"
#include "lora/base/dtype.h"
#include "lora/base/tensor.h"

namespace lora::merging {

/// True unless a value of these bytes is NaN or infinite; true for dtypes that are not float.
bool is_finite(DType dtype, std::span<const std::byte> bytes);

/// Throws Error(malformed) naming the tensor when `bytes`, a part of it, hold NaN or infinity.
void require_finite(const std::string& name, DType dtype, std::span<const std::byte> bytes);

/// The same for everything the adapter brings, all offenders at once.
void require_finite(const Adapter& adapter);

}  // namespace lora::merging
