#include "lora/base/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "lora/base/error.h"

namespace lora {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  std::size_t bits;
};

constexpr std::array<DTypeRow, 22> kRows{{
    {DType::boolean, "BOOL", 8},
    {DType::f4, "F4", 4},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::u8, "U8", 8},
    {DType::i8, "I8", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::i16, "I16", 16},
    {DType::u16, "U16", 16},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::i32, "I32", 32},
    {DType::u32, "U32", 32},
    {DType::f32, "F32", 32},
    {DType::c64, "C64", 64},
    {DType::f64, "F64", 64},
    {DType::i64, "I64", 64},
    {DType::u64, "U64", 64},
}};

template <typename T>
T load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(T));
  return value;
}

template <typename Out>
void widen_as(DType dtype, const std::byte* source, std::span<Out> out) {
  switch (dtype) {
    case DType::f32:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = load<float>(source + 4 * i);
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = bf16_to_f32(load<std::uint16_t>(source + 2 * i));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = f16_to_f32(load<std::uint16_t>(source + 2 * i));
      return;
    case DType::f64:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<Out>(load<double>(source + 8 * i));
      return;
    default:
      throw Error(ErrorKind::unsupported, "cannot compute with " + std::string(to_string(dtype)) +
                                              " values, expected a float dtype");
  }
}

// double -> float rounded to odd: a later rounding to 16 bits then equals a single direct rounding.
float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (std::isnan(value) || std::isinf(nearest) || static_cast<double>(nearest) == value)
    return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  if (away) bits -= 1;  // truncate towards zero
  return std::bit_cast<float>(bits | 1U);
}

template <typename In, typename Convert>
void store_each(std::span<const In> source, std::byte* out, Convert&& convert) {
  for (const In value : source) {
    const auto stored = convert(value);
    std::memcpy(out, &stored, sizeof(stored));
    out += sizeof(stored);
  }
}

template <typename In>
void narrow_as(std::span<const In> source, DType dtype, std::byte* out) {
  const auto as_f32 = [](In value) {
    if constexpr (sizeof(In) == 8) {
      return round_to_odd(value);
    } else {
      return value;
    }
  };
  switch (dtype) {
    case DType::f32:
      return store_each(source, out, [](In value) { return static_cast<float>(value); });
    case DType::f64:
      return store_each(source, out, [](In value) { return static_cast<double>(value); });
    case DType::bf16:
      return store_each(source, out, [&](In value) { return f32_to_bf16(as_f32(value)); });
    case DType::f16:
      return store_each(source, out, [&](In value) { return f32_to_f16(as_f32(value)); });
    default:
      throw Error(ErrorKind::unsupported, "cannot round values to " +
                                              std::string(to_string(dtype)) +
                                              ", expected F64, F32, F16 or BF16");
  }
}

}  // namespace

std::string_view to_string(DType dtype) { return kRows[static_cast<std::size_t>(dtype)].name; }

std::optional<DType> dtype_from_string(std::string_view name) {
  for (const auto& row : kRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

std::size_t bits_of(DType dtype) { return kRows[static_cast<std::size_t>(dtype)].bits; }

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x0040U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float f16_to_f32(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U)
    return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x3FFU));
  if (magnitude >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);
  if (magnitude < 0x38800000U) {
    // Subnormal half: let the float adder round by aligning the unit to 2^-24.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3F000000U));
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

void widen(DType dtype, const std::byte* source, std::span<float> out) {
  widen_as(dtype, source, out);
}
void widen(DType dtype, const std::byte* source, std::span<double> out) {
  widen_as(dtype, source, out);
}
void narrow(std::span<const float> source, DType dtype, std::byte* out) {
  narrow_as(source, dtype, out);
}
void narrow(std::span<const double> source, DType dtype, std::byte* out) {
  narrow_as(source, dtype, out);
}

}  // namespace lora
