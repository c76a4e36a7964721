// The global names that a torch.save stream may contain, and what they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lora/base/dtype.h"

namespace lora::pickle {

/// One element type of torch: its spelling there and how `lora` stores it.
struct ElementType {
  std::string_view torch_name;    ///< "float32", "bfloat16", ...
  std::string_view storage_name;  ///< "FloatStorage", ...; empty: only through UntypedStorage
  std::size_t bytes;              ///< per element
  std::optional<DType> dtype;     ///< none: recognised, yet tensors of it are refused by name
};

enum class GlobalKind : std::uint8_t {
  ordered_dict,
  rebuild_tensor,                ///< torch._utils._rebuild_tensor
  rebuild_tensor_v2,             ///< same with requires_grad, hooks, metadata
  rebuild_tensor_v3,             ///< same with an explicit dtype
  rebuild_parameter,             ///< wraps a tensor
  rebuild_parameter_with_state,  ///< a Parameter with Python attributes, which are dropped
  rebuild_from_type_v2,          ///< a Tensor with Python attributes, which are dropped
  tensor_class,                  ///< torch.Tensor, torch.nn.parameter.Parameter
  storage_class,
  dtype,
  size,   ///< torch.Size
  inert,  ///< stands for a value nothing here looks at, called or not
};

struct Global {
  GlobalKind kind;
  const ElementType* element = nullptr;  ///< of storage_class and dtype
};

/// nullopt for every name that is not on the list.
std::optional<Global> find_global(std::string_view module, std::string_view name);

/// The row of a dtype; null for F4 and F6 types, which torch.save cannot express one by one.
const ElementType* element_type_of(DType dtype);

}  // namespace lora::pickle
