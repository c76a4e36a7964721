// Block formats of GGUF: a block is a run of values of one row with its scales. The arithmetic is
// that of the package `gguf`, in f32 and in its order, so the results are equal to the last bit.
#include <array>
#include <cstring>

#include "lora/base/error.h"
#include "lora/format/gguf.h"

namespace lora {
namespace {

constexpr std::size_t kSuper = 256;  // values of a K block

unsigned byte_at(const std::byte* block, std::size_t i) {
  return std::to_integer<unsigned>(block[i]);
}

int signed_at(const std::byte* block, std::size_t i) { return static_cast<std::int8_t>(block[i]); }

float half_at(const std::byte* block, std::size_t i) {
  return f16_to_f32(static_cast<std::uint16_t>(byte_at(block, i) | (byte_at(block, i + 1) << 8)));
}

// The first half of 32 values has the low nibbles of 16 bytes, the second half the high ones.
unsigned nibble_of_32(const std::byte* data, std::size_t i) {
  return i < 16 ? byte_at(data, i) & 15U : byte_at(data, i - 16) >> 4;
}

// Values of `Bits` bits in `Run` bytes: all lowest parts first, then the next ones, then the next
// run.
template <std::size_t Run, unsigned Bits>
unsigned packed(const std::byte* data, std::size_t i) {
  constexpr std::size_t kParts = 8 / Bits;
  const std::size_t part = i / Run % kParts;
  const std::size_t byte = i / (Run * kParts) * Run + i % Run;
  return (byte_at(data, byte) >> (part * Bits)) & ((1U << Bits) - 1U);
}

void q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(static_cast<int>(nibble_of_32(block + 2, i)) - 8);
}

void q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block, 0);
  const float least = half_at(block, 2);
  for (std::size_t i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(nibble_of_32(block + 4, i)) + least;
}

// The fifth bits of 32 values lie in four bytes.
unsigned five_bits(const std::byte* high, const std::byte* low, std::size_t i) {
  return nibble_of_32(low, i) | (((byte_at(high, i / 8) >> (i % 8)) & 1U) << 4);
}

void q5_0(const std::byte* block, float* out) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(static_cast<int>(five_bits(block + 2, block + 6, i)) - 16);
}

void q5_1(const std::byte* block, float* out) {
  const float scale = half_at(block, 0);
  const float least = half_at(block, 2);
  for (std::size_t i = 0; i < 32; ++i)
    out[i] = scale * static_cast<float>(five_bits(block + 4, block + 8, i)) + least;
}

void q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<float>(signed_at(block, 2 + i)) * scale;
}

void iq4_nl(const std::byte* block, float* out) {
  // Levels of the format's own, denser near zero.
  constexpr std::array<float, 16> kLevels{-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 32; ++i) out[i] = scale * kLevels[nibble_of_32(block + 2, i)];
}

void q2_k(const std::byte* block, float* out) {
  const std::byte* scales = block;
  const std::byte* values = block + 16;
  const float scale = half_at(block, 80);
  const float least = half_at(block, 82);
  for (std::size_t i = 0; i < kSuper; ++i) {
    const unsigned both = byte_at(scales, i / 16);
    const float own_scale = scale * static_cast<float>(both & 15U);
    const float own_least = least * static_cast<float>(both >> 4);
    out[i] = own_scale * static_cast<float>(packed<32, 2>(values, i)) - own_least;
  }
}

void q3_k(const std::byte* block, float* out) {
  const std::byte* high = block;
  const std::byte* low = block + 32;
  const std::byte* scales = block + 96;
  const float scale = half_at(block, 108);
  std::array<float, 16> own_scale;
  for (std::size_t k = 0; k < own_scale.size(); ++k) {
    const unsigned bits = packed<8, 4>(scales, k) | (packed<4, 2>(scales + 8, k) << 4);
    own_scale[k] = scale * static_cast<float>(static_cast<int>(bits) - 32);
  }
  for (std::size_t i = 0; i < kSuper; ++i) {
    // A set bit means that nothing is taken off.
    const int value = static_cast<int>(packed<32, 2>(low, i)) - (packed<32, 1>(high, i) ? 0 : 4);
    out[i] = own_scale[i / 16] * static_cast<float>(value);
  }
}

struct ScaleAndLeast {
  float scale, least;
};

// Eight pairs of six bits: four pairs in the low bits of eight bytes, the other four in their high
// bits and the nibbles of four more.
ScaleAndLeast pair_of(const std::byte* block, std::size_t k) {
  const std::byte* packed_pairs = block + 4;
  const auto at = [&](std::size_t i) { return byte_at(packed_pairs, i); };
  const unsigned scale = k < 4 ? at(k) & 63U : (at(k + 4) & 15U) | ((at(k - 4) >> 2) & 48U);
  const unsigned least = k < 4 ? at(k + 4) & 63U : (at(k + 4) >> 4) | ((at(k) >> 2) & 48U);
  return {half_at(block, 0) * static_cast<float>(scale),
          half_at(block, 2) * static_cast<float>(least)};
}

void q4_k(const std::byte* block, float* out) {
  for (std::size_t k = 0; k < 8; ++k) {
    const auto [scale, least] = pair_of(block, k);
    for (std::size_t i = 32 * k; i < 32 * (k + 1); ++i)
      out[i] = scale * static_cast<float>(packed<32, 4>(block + 16, i)) - least;
  }
}

void q5_k(const std::byte* block, float* out) {
  for (std::size_t k = 0; k < 8; ++k) {
    const auto [scale, least] = pair_of(block, k);
    for (std::size_t i = 32 * k; i < 32 * (k + 1); ++i) {
      const unsigned value = packed<32, 4>(block + 48, i) | (packed<32, 1>(block + 16, i) << 4);
      out[i] = scale * static_cast<float>(value) - least;
    }
  }
}

void q6_k(const std::byte* block, float* out) {
  const std::byte* low = block;
  const std::byte* high = block + 128;
  const std::byte* scales = block + 192;
  const float scale = half_at(block, 208);
  for (std::size_t i = 0; i < kSuper; ++i) {
    const unsigned bits = packed<64, 4>(low, i) | (packed<32, 2>(high, i) << 4);
    const float own_scale = scale * static_cast<float>(signed_at(scales, i / 16));
    out[i] = own_scale * static_cast<float>(static_cast<int>(bits) - 32);
  }
}

struct Entry {
  GgufFormat format;
  void (*widen)(const std::byte* block, float* out);  // null: plain values
};

constexpr std::array kEntries{
    Entry{{GgufType::f32, "F32", 1, 4, DType::f32}, nullptr},
    Entry{{GgufType::f16, "F16", 1, 2, DType::f16}, nullptr},
    Entry{{GgufType::bf16, "BF16", 1, 2, DType::bf16}, nullptr},
    Entry{{GgufType::f64, "F64", 1, 8, DType::f64}, nullptr},
    Entry{{GgufType::i8, "I8", 1, 1, DType::i8}, nullptr},
    Entry{{GgufType::i16, "I16", 1, 2, DType::i16}, nullptr},
    Entry{{GgufType::i32, "I32", 1, 4, DType::i32}, nullptr},
    Entry{{GgufType::i64, "I64", 1, 8, DType::i64}, nullptr},
    Entry{{GgufType::q4_0, "Q4_0", 32, 18, std::nullopt}, q4_0},
    Entry{{GgufType::q4_1, "Q4_1", 32, 20, std::nullopt}, q4_1},
    Entry{{GgufType::q5_0, "Q5_0", 32, 22, std::nullopt}, q5_0},
    Entry{{GgufType::q5_1, "Q5_1", 32, 24, std::nullopt}, q5_1},
    Entry{{GgufType::q8_0, "Q8_0", 32, 34, std::nullopt}, q8_0},
    Entry{{GgufType::q2_k, "Q2_K", kSuper, 84, std::nullopt}, q2_k},
    Entry{{GgufType::q3_k, "Q3_K", kSuper, 110, std::nullopt}, q3_k},
    Entry{{GgufType::q4_k, "Q4_K", kSuper, 144, std::nullopt}, q4_k},
    Entry{{GgufType::q5_k, "Q5_K", kSuper, 176, std::nullopt}, q5_k},
    Entry{{GgufType::q6_k, "Q6_K", kSuper, 210, std::nullopt}, q6_k},
    Entry{{GgufType::iq4_nl, "IQ4_NL", 32, 18, std::nullopt}, iq4_nl},
};

const Entry* entry_of(std::uint32_t type) {
  for (const Entry& entry : kEntries)
    if (static_cast<std::uint32_t>(entry.format.type) == type) return &entry;
  return nullptr;
}

}  // namespace

const GgufFormat* gguf_format(std::uint32_t type) {
  const Entry* entry = entry_of(type);
  return entry ? &entry->format : nullptr;
}

void dequantise(const GgufFormat& format, std::span<const std::byte> blocks, std::span<float> out) {
  const Entry* entry = entry_of(static_cast<std::uint32_t>(format.type));
  if (entry == nullptr || entry->widen == nullptr || out.size() % format.values != 0 ||
      blocks.size() != out.size() / format.values * format.bytes)
    throw Error(ErrorKind::internal, "blocks of " + std::string(format.name) +
                                         " do not fit: " + std::to_string(blocks.size()) +
                                         " bytes for " + std::to_string(out.size()) + " values");
  const std::byte* block = blocks.data();
  for (std::size_t i = 0; i < out.size(); i += format.values, block += format.bytes)
    entry->widen(block, out.data() + i);
}

}  // namespace lora
