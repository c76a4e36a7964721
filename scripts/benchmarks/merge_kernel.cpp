// bench_merge_kernel SIZE RANK ROUNDS: seconds of merging one bf16 matrix from memory to memory,
// the best of some rounds: W + s * (B . A) in f32, rounded into bf16, with the figures of what
// survives.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "lora/base/parallel.h"
#include "lora/base/tensor.h"
#include "ops/replay/row_block.h"

namespace {

lora::Tensor noise(std::uint64_t seed, std::int64_t rows, std::int64_t columns, float width) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  std::uint64_t state = seed;
  for (float& value : values) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = width * (static_cast<float>(state >> 40) / static_cast<float>(1U << 23) - 1);
  }
  return lora::Tensor::from_f32({rows, columns}, values);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  const std::int64_t size = std::atoll(arguments[1]), rank = std::atoll(arguments[2]);
  lora::replay::Target target;
  target.base_name = "weight";
  target.base = noise(1, size, size, 0.05F).cast(lora::DType::bf16);
  target.merged = target.base;
  target.rows = target.columns = size;
  target.adapters = 1;
  lora::replay::Addition addition;
  addition.a = noise(2, rank, size, 0.02F);
  addition.b = noise(3, size, rank, 0.02F);
  addition.scaling = 2;
  target.blocks = {{0, size, {addition}}};
  std::vector<std::byte> out(target.base.bytes.size());
  const std::size_t row_bytes = out.size() / static_cast<std::size_t>(size);
  const auto threads = static_cast<std::size_t>(lora::available_threads());
  const auto merge = [&] {
    const auto factors = lora::replay::pack_blocks(target, std::nullopt);
    std::vector<lora::replay::Sums> sums(threads);
    lora::parallel_for(threads, 0, [&](std::size_t thread) {
      lora::replay::RowBlock block(target, factors, {{lora::DType::bf16, false, false}},
                                   lora::replay::best_kernels());
      const auto at = [&](std::size_t i) { return size * std::int64_t(i) / std::int64_t(threads); };
      for (std::int64_t row = at(thread), end = at(thread + 1); row < end;) {
        const std::int64_t count = std::min(block.rows_at_once(row), end - row);
        block.write(row, count, out.data() + std::size_t(row) * row_bytes, sums[thread]);
        row += count;
      }
    });
  };
  double best = 1e9;
  for (int round = 0; round < std::atoi(arguments[3]); ++round) {
    const auto start = std::chrono::steady_clock::now();
    merge();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  std::printf("%.6f\n", best);
}
