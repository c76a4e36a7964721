#include "format/pickle_globals.h"

#include <array>

namespace lora::pickle {
namespace {

constexpr auto kElementTypes = std::to_array<ElementType>({
    {"float32", "FloatStorage", 4, DType::f32},
    {"float64", "DoubleStorage", 8, DType::f64},
    {"float16", "HalfStorage", 2, DType::f16},
    {"bfloat16", "BFloat16Storage", 2, DType::bf16},
    {"int64", "LongStorage", 8, DType::i64},
    {"int32", "IntStorage", 4, DType::i32},
    {"int16", "ShortStorage", 2, DType::i16},
    {"int8", "CharStorage", 1, DType::i8},
    {"uint8", "ByteStorage", 1, DType::u8},
    {"bool", "BoolStorage", 1, DType::boolean},
    {"complex64", "ComplexFloatStorage", 8, DType::c64},
    {"uint16", "", 2, DType::u16},
    {"uint32", "", 4, DType::u32},
    {"uint64", "", 8, DType::u64},
    {"float8_e4m3fn", "", 1, DType::f8_e4m3},
    {"float8_e5m2", "", 1, DType::f8_e5m2},
    {"float8_e4m3fnuz", "", 1, DType::f8_e4m3fnuz},
    {"float8_e5m2fnuz", "", 1, DType::f8_e5m2fnuz},
    {"float8_e8m0fnu", "", 1, DType::f8_e8m0},
    {"complex128", "ComplexDoubleStorage", 16, std::nullopt},
    {"complex32", "", 4, std::nullopt},
    {"float4_e2m1fn_x2", "", 1, std::nullopt},
    {"qint8", "QInt8Storage", 1, std::nullopt},
    {"quint8", "QUInt8Storage", 1, std::nullopt},
    {"qint32", "QInt32Storage", 4, std::nullopt},
});

// Bytes without a type: the tensor built on them names its own.
constexpr ElementType kUntyped{"uint8", "UntypedStorage", 1, DType::u8};

struct Name {
  std::string_view module;
  std::string_view name;
  GlobalKind kind;
};

constexpr auto kNames = std::to_array<Name>({
    {"collections", "OrderedDict", GlobalKind::ordered_dict},
    {"torch._utils", "_rebuild_tensor", GlobalKind::rebuild_tensor},
    {"torch._utils", "_rebuild_tensor_v2", GlobalKind::rebuild_tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", GlobalKind::rebuild_tensor_v3},
    {"torch._utils", "_rebuild_parameter", GlobalKind::rebuild_parameter},
    {"torch._utils", "_rebuild_parameter_with_state", GlobalKind::rebuild_parameter_with_state},
    {"torch._tensor", "_rebuild_from_type_v2", GlobalKind::rebuild_from_type_v2},
    {"torch", "Tensor", GlobalKind::tensor_class},
    {"torch.nn.parameter", "Parameter", GlobalKind::tensor_class},
    {"torch", "Size", GlobalKind::size},
    {"torch", "device", GlobalKind::inert},
    {"torch.serialization", "_get_layout", GlobalKind::inert},
    {"collections", "Counter", GlobalKind::inert},
    {"_codecs", "encode", GlobalKind::inert},
    {"builtins", "set", GlobalKind::inert},
    {"builtins", "bytearray", GlobalKind::inert},
    {"builtins", "complex", GlobalKind::inert},
    {"__builtin__", "set", GlobalKind::inert},
    {"__builtin__", "bytearray", GlobalKind::inert},
    {"__builtin__", "complex", GlobalKind::inert},
});

}  // namespace

std::optional<Global> find_global(std::string_view module, std::string_view name) {
  for (const Name& known : kNames)
    if (known.module == module && known.name == name) return Global{known.kind};
  const bool is_torch = module == "torch";
  if ((is_torch || module == "torch.storage") && name == kUntyped.storage_name)
    return Global{GlobalKind::storage_class, &kUntyped};
  if (!is_torch && module != "torch.cuda") return std::nullopt;
  for (const ElementType& type : kElementTypes) {
    if (!type.storage_name.empty() && type.storage_name == name)
      return Global{GlobalKind::storage_class, &type};
    if (is_torch && type.torch_name == name) return Global{GlobalKind::dtype, &type};
  }
  return std::nullopt;
}

const ElementType* element_type_of(DType dtype) {
  for (const ElementType& type : kElementTypes)
    if (type.dtype == dtype) return &type;
  return nullptr;
}

}  // namespace lora::pickle
