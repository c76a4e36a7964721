// Element types of tensors, spelled as in safetensors, and conversions between floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace lora {

/// Declared in ascending order of the safetensors reference enumeration: files are laid out by
/// dtype *descending* (u64 first, boolean last), so comparing two values compares their rank.
enum class DType : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

/// "F32", "BF16", "BOOL", ...
std::string_view to_string(DType dtype);

/// Inverse of to_string; exact spelling only.
std::optional<DType> dtype_from_string(std::string_view name);

/// Bits per element: 1 byte types give 8, F4 gives 4, F6 gives 6, C64 gives 64.
std::size_t bits_of(DType dtype);

/// True for F64, F32, F16, BF16: the types whose values this program computes with.
bool is_float(DType dtype);

/// IEEE half and bfloat16 conversions; to 16 bits with round-to-nearest-even, NaN stays (quiet)
/// NaN.
float f16_to_f32(std::uint16_t bits);
float bf16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);
std::uint16_t f32_to_bf16(float value);

/// Widens `count` elements of a float dtype at `source` (any alignment) into f32 / f64.
/// Throws Error(unsupported) for dtypes that are not is_float().
void widen(DType dtype, const std::byte* source, std::span<float> out);
void widen(DType dtype, const std::byte* source, std::span<double> out);

/// Rounds floats to `dtype` with round-to-nearest-even into `out` (any alignment, size*bits/8
/// bytes). Throws Error(unsupported) for dtypes that are not is_float().
void narrow(std::span<const float> source, DType dtype, std::byte* out);
void narrow(std::span<const double> source, DType dtype, std::byte* out);

}  // namespace lora
