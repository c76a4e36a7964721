// Emits the pickle stream of a state dict as torch.load(weights_only=True) reads it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/base/dtype.h"

namespace lora::pickle {

/// One tensor that fills its storage from the first element, row-major.
struct PickledTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::string storage_key;          ///< equal keys share one storage
  std::uint64_t storage_count = 0;  ///< elements
};

/// Protocol 2: an OrderedDict of _rebuild_tensor_v2, or _rebuild_tensor_v3 on an UntypedStorage for
/// the dtypes that have no storage class in torch (unsigned 16 to 64 bits, float8). Throws
/// Error(unsupported) for F4 and F6.
std::string write_state_dict(const std::vector<PickledTensor>& tensors);

}  // namespace lora::pickle
