#include "ops/numbers/split_gram.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "ops/numbers/vector.h"

#ifdef LORA_HAS_LEVELS
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lora::numbers {
namespace {

// Rows summed in one chain; their parts of all panels stay in the second-level cache.
constexpr std::int64_t kChain = 64;

}  // namespace

#ifdef LORA_HAS_LEVELS
namespace {

#define LORA_AMX __attribute__((target("arch=x86-64-v4,amx-tile,amx-bf16")))

// A tile has 16 rows of 16 pairs of bf16 numbers; a step takes 32 rows of the values.
constexpr std::int64_t kTile = 16, kStep = 32;
using Tile16 = std::array<std::uint32_t, kTile * kTile>;

// 32 rows of a panel: of each half of its columns the large and the small parts, as the left factor
// of a product (pairs of rows side by side in a column's line) and as the right one.
struct alignas(64) Step {
  std::array<std::array<Tile16, 2>, 2> left, right;  // [small][half]
};

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

using Floats = Register<64>::FullFloats;
using LooseFloats = Register<64>::LooseFullFloats;
using Words = Register<64>::FullWords;
typedef std::uint32_t WordsInMemory __attribute__((vector_size(64), may_alias));

// The upper halves of finite values rounded to bf16; `values` become what that leaves out.
LORA_AMX LORA_INLINE Words take_bf16(Floats& values) {
  const Words bits = (Words)values;
  const Words upper = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
  values -= (Floats)upper;
  return upper;
}

// Interleaves the lower or the upper two words, or pairs of words, of every four.
#define LORA_ZIP(a, b, i0, i1, i2, i3)                                                          \
  __builtin_shufflevector(a, b, i0, i1, i2, i3, 4 + i0, 4 + i1, 4 + i2, 4 + i3, 8 + i0, 8 + i1, \
                          8 + i2, 8 + i3, 12 + i0, 12 + i1, 12 + i2, 12 + i3)
// Every second four of both.
#define LORA_FOURS(a, b, i, j)                                                                  \
  __builtin_shufflevector(a, b, i, i + 1, i + 2, i + 3, j, j + 1, j + 2, j + 3, 16 + i, 17 + i, \
                          18 + i, 19 + i, 16 + j, 17 + j, 18 + j, 19 + j)

LORA_AMX LORA_INLINE void transpose(const Tile16& from, Tile16& to) {
  Words rows[kTile], turned[kTile];
  const auto* lines = reinterpret_cast<const WordsInMemory*>(from.data());
  auto* out = reinterpret_cast<WordsInMemory*>(to.data());
#pragma GCC unroll 16
  for (int i = 0; i < kTile; i += 2) {
    turned[i] = LORA_ZIP(lines[i], lines[i + 1], 0, 16, 1, 17);
    turned[i + 1] = LORA_ZIP(lines[i], lines[i + 1], 2, 18, 3, 19);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTile; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      rows[i + 2 * j] = LORA_ZIP(turned[i + j], turned[i + 2 + j], 0, 1, 16, 17);
      rows[i + 2 * j + 1] = LORA_ZIP(turned[i + j], turned[i + 2 + j], 2, 3, 18, 19);
    }
    // Now rows[i + j] holds the columns j, 4 + j, 8 + j and 12 + j of the rows i to i + 3.
#pragma GCC unroll 16
  for (int i = 0; i < kTile; i += 8)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      turned[i + j] = LORA_FOURS(rows[i + j], rows[i + 4 + j], 0, 8);
      turned[i + 4 + j] = LORA_FOURS(rows[i + j], rows[i + 4 + j], 4, 12);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    out[j] = LORA_FOURS(turned[j], turned[8 + j], 0, 8);
    out[4 + j] = LORA_FOURS(turned[4 + j], turned[12 + j], 0, 8);
    out[8 + j] = LORA_FOURS(turned[j], turned[8 + j], 4, 12);
    out[12 + j] = LORA_FOURS(turned[4 + j], turned[12 + j], 4, 12);
  }
}

LORA_AMX void split(const float* rows, Step& step) {
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t pair = 0; pair < kTile; ++pair) {
      const float* row = rows + 2 * pair * kPanelColumns + half * kTile;
      Floats even = *reinterpret_cast<const LooseFloats*>(row);
      Floats odd = *reinterpret_cast<const LooseFloats*>(row + kPanelColumns);
      for (std::size_t part = 0; part < 2; ++part) {
        const Words pairs = take_bf16(even) >> 16 | take_bf16(odd);
        reinterpret_cast<WordsInMemory*>(step.right[part][half].data())[pair] = pairs;
      }
    }
    for (std::size_t part = 0; part < 2; ++part)
      transpose(step.right[part][half], step.left[part][half]);
  }
}

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

LORA_AMX LORA_INLINE void multiply_halves() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// GCC 12 does not know which memory tile instructions read and write.
LORA_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

// Adds the sum over `count` steps of left^T . right to `out` [32, 32].
LORA_AMX void multiply_steps(const Step* left, const Step* right, std::size_t count, float* out) {
  alignas(64) float sums[kPanelColumns * kPanelColumns];
  settle_memory();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& a = left[i].left;
    const auto& b = right[i].right;
    _tile_loadd(4, a[0][0].data(), 64);
    _tile_loadd(5, a[0][1].data(), 64);
    _tile_loadd(6, b[0][0].data(), 64);
    _tile_loadd(7, b[0][1].data(), 64);
    multiply_halves();
    _tile_loadd(6, b[1][0].data(), 64);
    _tile_loadd(7, b[1][1].data(), 64);
    multiply_halves();
    _tile_loadd(4, a[1][0].data(), 64);
    _tile_loadd(5, a[1][1].data(), 64);
    _tile_loadd(6, b[0][0].data(), 64);
    _tile_loadd(7, b[0][1].data(), 64);
    multiply_halves();
  }
  constexpr int kRowBytes = 4 * kPanelColumns;
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + kTile, kRowBytes);
  _tile_stored(2, sums + kTile * kPanelColumns, kRowBytes);
  _tile_stored(3, sums + kTile * kPanelColumns + kTile, kRowBytes);
  settle_memory();
  for (std::size_t i = 0; i < kPanelColumns * kPanelColumns; i += kTile)
    *reinterpret_cast<LooseFloats*>(out + i) += *reinterpret_cast<const LooseFloats*>(sums + i);
}

LORA_AMX void configure() {
  static const TileConfig config;
  settle_memory();
  _tile_loadconfig(&config);
}

LORA_AMX void release() { _tile_release(); }

bool ask_for_matrix_units() {
  if (!has_avx512() || __builtin_cpu_supports("amx-tile") == 0 ||
      __builtin_cpu_supports("amx-bf16") == 0)
    return false;
  // The system keeps the tiles of a process only after it has asked (arch_prctl, tile data).
  constexpr int kRequest = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

}  // namespace

bool has_matrix_units() {
  static const bool has = ask_for_matrix_units();
  return has;
}

PanelMatrix split_gram(const PanelMatrix& values) {
  PanelMatrix lower(values.columns(), values.columns());
  const std::int64_t rows = values.padded_rows(), panels = values.panels();
  std::vector<Step> steps(size(panels * kChain / kStep));
  configure();
  for (std::int64_t row = 0; row < rows; row += kChain) {
    const std::int64_t count = std::min(kChain, rows - row) / kStep;
    for (std::int64_t p = 0; p < panels; ++p)
      for (std::int64_t i = 0; i < count; ++i)
        split(values.panel(p) + (row + i * kStep) * std::int64_t{kPanelColumns},
              steps[size(p * count + i)]);
    for (std::int64_t p = 0; p < panels; ++p)
      for (std::int64_t q = 0; q <= p; ++q)
        multiply_steps(&steps[size(p * count)], &steps[size(q * count)], size(count),
                       lower.panel(q) + p * std::int64_t{kPanelColumns * kPanelColumns});
  }
  release();
  return lower;
}

#else

bool has_matrix_units() { return false; }

PanelMatrix split_gram(const PanelMatrix& values) { return chained_gram(values); }

#endif

double split_gram_terms(std::int64_t rows) {
  // Two parts together are off by 2^-18 of a value, and so is the product that is left out: 192
  // units of 2^-24. Then chains of three products a row, and a sum of the chains.
  return static_cast<double>(192 + 3 * std::min(rows, kChain) + (rows + kChain - 1) / kChain);
}

}  // namespace lora::numbers
