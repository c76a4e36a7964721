#include "ops/site_blocks.h"

#include <cstring>

namespace lora {
namespace {

std::size_t bytes_of(std::int64_t values, DType dtype) {
  return static_cast<std::size_t>(values) * bits_of(dtype) / 8;
}

// Blocks of equal size, each followed by zeros up to a larger size.
std::vector<std::byte> spread(const Tensor& tensor, std::int64_t blocks, std::size_t larger) {
  const std::size_t size = tensor.bytes.size() / static_cast<std::size_t>(blocks);
  std::vector<std::byte> out(larger * static_cast<std::size_t>(blocks), std::byte{0});
  for (std::size_t i = 0; i < static_cast<std::size_t>(blocks); ++i)
    std::memcpy(out.data() + i * larger, tensor.bytes.data() + i * size, size);
  return out;
}

std::int64_t block_count(const LoraModule& module) {
  return std::max(module.experts, module.groups);
}

SiteFactors with_shapes(const LoraModule& module, std::int64_t rank) {
  SiteFactors factors;
  factors.rank = rank;
  factors.scaling = module.scaling;
  factors.a.shape = module.a.shape;
  factors.b.shape = module.b.shape;
  factors.a.shape[0] = rank * module.experts;
  factors.b.shape[1] = rank / module.groups * module.experts;
  return factors;
}

}  // namespace

std::vector<UpdateFactor> blocks_of(const LoraModule& module) {
  LoraModule plain = module;
  plain.times = 1;
  plain.pool = 1;
  if (plain.scaling == 0) plain.scaling = 1;
  return update_factors(plain);
}

double energy_factor(const LoraModule& module) {
  double factor = module.scaling == 0 ? 0 : module.times * module.times;
  if (module.pool > 1) {
    const auto columns = static_cast<double>(module.a.shape[1]);
    factor *= columns * columns * static_cast<double>(module.pool);
  }
  return factor;
}

std::int64_t rank_step(const LoraModule& module) { return module.groups; }

std::string why_fixed(const LoraModule& module) {
  if (module.diagonal)
    return "KaSA (lora_diag) removes as many directions of the base as the adapter has ranks";
  if (module.blocks_a > 1 || module.blocks_b > 1)
    return "BD-LoRA (use_bdlora) shares its rank between blocks on the diagonal";
  return {};
}

SiteFactors joined(const LoraModule& module, std::span<const numbers::SplitFactors> blocks) {
  const Eigen::Index k = blocks.front().b.cols();
  const bool is_stack = module.experts > 1;
  SiteFactors factors =
      with_shapes(module, is_stack ? k : k * static_cast<std::int64_t>(blocks.size()));
  std::vector<float> a, b(static_cast<std::size_t>(factors.b.numel()));
  a.reserve(static_cast<std::size_t>(factors.a.numel()));
  const std::size_t wide = static_cast<std::size_t>(factors.b.shape[1]);
  for (std::size_t i = 0, first_row = 0; i < blocks.size(); ++i) {
    const numbers::Matrix& block_a = blocks[i].a;
    const numbers::Matrix& block_b = blocks[i].b;
    for (Eigen::Index row = 0; row < k; ++row)
      for (Eigen::Index column = 0; column < block_a.cols(); ++column)
        a.push_back(static_cast<float>(block_a(row, column)));
    // Columns of experts lie beside each other, rank by rank; groups have rows of their own.
    const std::size_t offset = is_stack ? i : 0, stride = is_stack ? blocks.size() : 1;
    for (Eigen::Index row = 0; row < block_b.rows(); ++row)
      for (Eigen::Index column = 0; column < k; ++column)
        b[(first_row + static_cast<std::size_t>(row)) * wide +
          static_cast<std::size_t>(column) * stride + offset] =
            static_cast<float>(block_b(row, column));
    if (!is_stack) first_row += static_cast<std::size_t>(block_b.rows());
  }
  factors.a = Tensor::from_f32(factors.a.shape, a);
  factors.b = Tensor::from_f32(factors.b.shape, b);
  return factors;
}

SiteFactors padded(const LoraModule& module, std::int64_t rank) {
  SiteFactors factors = with_shapes(module, rank);
  const std::int64_t blocks = block_count(module);
  factors.a = Tensor::from_bytes(
      module.a.dtype, factors.a.shape,
      spread(module.a, blocks, bytes_of(factors.a.numel() / blocks, module.a.dtype)));
  factors.b =
      Tensor::from_bytes(module.b.dtype, factors.b.shape,
                         spread(module.b, module.b.shape[0],
                                bytes_of(factors.b.numel() / module.b.shape[0], module.b.dtype)));
  return factors;
}

}  // namespace lora
