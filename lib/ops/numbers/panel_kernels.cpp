#include "ops/numbers/panel_kernels.h"

#include "ops/numbers/vector.h"

namespace lora::numbers {
namespace {

// `Rows` rows times `Parts` registers of the tile at a time: as many sums as there are registers
// for. `RowStep` and `DepthStep` say how the left values lie.
template <int Bytes, int Rows, int Parts, std::size_t RowStep, std::size_t DepthStep>
LORA_INLINE void tile_body(const Tile& tile) {
  using R = Register<Bytes>;
  using Floats = typename R::FullFloats;
  using Loose = typename R::LooseFullFloats;
  constexpr std::size_t kLanes = Bytes / 4;
  constexpr std::size_t kWidth = Parts * kLanes;
  for (std::size_t first = 0; first < kTileRows; first += Rows)
    for (std::size_t column = 0; column < kPanelColumns; column += kWidth) {
      Floats sums[Rows][Parts];
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int part = 0; part < Parts; ++part) sums[row][part] = Floats{};
      for (std::size_t piece = 0; piece < tile.outer; ++piece) {
        const float* a = tile.a + piece * tile.a_outer + first * RowStep;
        const float* b = tile.b + piece * tile.b_outer + column;
        for (std::size_t t = 0; t < tile.depth; ++t, a += DepthStep, b += kPanelColumns) {
          Floats right[Parts];
#pragma GCC unroll 8
          for (int part = 0; part < Parts; ++part)
            right[part] =
                *reinterpret_cast<const Loose*>(b + static_cast<std::size_t>(part) * kLanes);
#pragma GCC unroll 8
          for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
            for (int part = 0; part < Parts; ++part)
              sums[row][part] += a[static_cast<std::size_t>(row) * RowStep] * right[part];
        }
      }
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int part = 0; part < Parts; ++part) {
          float* out = tile.c + (first + static_cast<std::size_t>(row)) * kPanelColumns + column +
                       static_cast<std::size_t>(part) * kLanes;
          Floats value = sums[row][part];
          if (tile.store == Store::add) value = *reinterpret_cast<const Loose*>(out) + value;
          if (tile.store == Store::subtract) value = *reinterpret_cast<const Loose*>(out) - value;
          *reinterpret_cast<Loose*>(out) = value;
        }
    }
}

template <int Bytes, int Rows>
LORA_INLINE void gram_body(const float* p, const float* q, std::size_t count, double* sums) {
  using R = Register<Bytes>;
  using Doubles = typename R::Doubles;
  using LooseDoubles = typename R::LooseDoubles;
  using LooseFloats = typename R::LooseFloats;
  constexpr std::size_t kLanes = R::kLanes;
  constexpr int kParts = 4;
  constexpr std::size_t kWidth = kParts * kLanes;
  for (std::size_t first = 0; first < kPanelColumns; first += Rows)
    for (std::size_t column = 0; column < kPanelColumns; column += kWidth) {
      Doubles total[Rows][kParts];
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) total[row][part] = Doubles{};
      for (std::size_t t = 0; t < count; ++t) {
        Doubles right[kParts];
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
          const typename R::Floats narrow = *reinterpret_cast<const LooseFloats*>(
              q + kPanelColumns * t + column + static_cast<std::size_t>(part) * kLanes);
          right[part] = __builtin_convertvector(narrow, Doubles);
        }
#pragma GCC unroll 8
        for (int row = 0; row < Rows; ++row) {
          const double left = p[kPanelColumns * t + first + static_cast<std::size_t>(row)];
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) total[row][part] += left * right[part];
        }
      }
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) {
          double* out = sums + (first + static_cast<std::size_t>(row)) * kPanelColumns + column +
                        static_cast<std::size_t>(part) * kLanes;
          const Doubles value = *reinterpret_cast<const LooseDoubles*>(out) + total[row][part];
          *reinterpret_cast<LooseDoubles*>(out) = value;
        }
    }
}

template <int Bytes>
LORA_INLINE void squares_body(const float* p, std::size_t count, double* sums) {
  using R = Register<Bytes>;
  using Doubles = typename R::Doubles;
  using LooseDoubles = typename R::LooseDoubles;
  using LooseFloats = typename R::LooseFloats;
  constexpr int kParts = 4;
  for (std::size_t column = 0; column < kPanelColumns; column += kParts * R::kLanes) {
    Doubles total[kParts] = {};
    for (std::size_t t = 0; t < count; ++t)
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part) {
        const typename R::Floats narrow = *reinterpret_cast<const LooseFloats*>(
            p + kPanelColumns * t + column + static_cast<std::size_t>(part * R::kLanes));
        const Doubles value = __builtin_convertvector(narrow, Doubles);
        total[part] += value * value;
      }
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      double* out = sums + column + static_cast<std::size_t>(part * R::kLanes);
      const Doubles value = *reinterpret_cast<const LooseDoubles*>(out) + total[part];
      *reinterpret_cast<LooseDoubles*>(out) = value;
    }
  }
}

void rows_plain(const Tile& tile) { tile_body<16, 4, 2, kPanelColumns, 1>(tile); }
void columns_plain(const Tile& tile) { tile_body<16, 4, 2, 1, kPanelColumns>(tile); }
void gram_plain(const float* p, const float* q, std::size_t count, double* sums) {
  gram_body<16, 2>(p, q, count, sums);
}
void squares_plain(const float* p, std::size_t count, double* sums) {
  squares_body<16>(p, count, sums);
}

#ifdef LORA_HAS_LEVELS
LORA_AVX2 void rows_avx2(const Tile& tile) { tile_body<32, 4, 2, kPanelColumns, 1>(tile); }
LORA_AVX2 void columns_avx2(const Tile& tile) { tile_body<32, 4, 2, 1, kPanelColumns>(tile); }
LORA_AVX2 void gram_avx2(const float* p, const float* q, std::size_t count, double* sums) {
  gram_body<32, 2>(p, q, count, sums);
}
LORA_AVX2 void squares_avx2(const float* p, std::size_t count, double* sums) {
  squares_body<32>(p, count, sums);
}
LORA_AVX512 void rows_avx512(const Tile& tile) { tile_body<64, 8, 2, kPanelColumns, 1>(tile); }
LORA_AVX512 void columns_avx512(const Tile& tile) { tile_body<64, 8, 2, 1, kPanelColumns>(tile); }
LORA_AVX512 void gram_avx512(const float* p, const float* q, std::size_t count, double* sums) {
  gram_body<64, 4>(p, q, count, sums);
}
LORA_AVX512 void squares_avx512(const float* p, std::size_t count, double* sums) {
  squares_body<64>(p, count, sums);
}
#endif

}  // namespace

std::vector<PanelKernels> available_panel_kernels() {
  std::vector<PanelKernels> levels{{"plain", rows_plain, columns_plain, gram_plain, squares_plain}};
#ifdef LORA_HAS_LEVELS
  if (has_avx2()) levels.push_back({"avx2", rows_avx2, columns_avx2, gram_avx2, squares_avx2});
  if (has_avx512())
    levels.push_back({"avx512", rows_avx512, columns_avx512, gram_avx512, squares_avx512});
#endif
  return levels;
}

namespace {

PanelKernels& chosen() {
  static PanelKernels level = available_panel_kernels().back();
  return level;
}

}  // namespace

const PanelKernels& panel_kernels() { return chosen(); }

void choose_panel_kernels(const PanelKernels& level) { chosen() = level; }

}  // namespace lora::numbers
