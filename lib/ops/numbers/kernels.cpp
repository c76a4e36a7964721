#include "ops/numbers/kernels.h"

#include "ops/numbers/gram_kernels.h"
#include "ops/numbers/scan_kernels.h"
#include "ops/numbers/vector.h"

namespace lora::numbers {

std::vector<Kernels> available_kernels() {
  std::vector<Kernels> levels{
      {"plain", scan_plain, widen_f16_plain, widen_bf16_plain, multiply_plain, add_rows_plain}};
#ifdef LORA_HAS_LEVELS
  if (has_avx2())
    levels.push_back(
        {"avx2", scan_avx2, widen_f16_avx2, widen_bf16_avx2, multiply_avx2, add_rows_avx2});
  if (has_avx512())
    levels.push_back({"avx512", scan_avx512, widen_f16_avx512, widen_bf16_avx512, multiply_avx512,
                      add_rows_avx512});
#endif
  return levels;
}

const Kernels& kernels() {
  static const Kernels best = available_kernels().back();
  return best;
}

}  // namespace lora::numbers
