#include "engine/quantised_matrix.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>

#include "engine/bridge.h"
#include "engine/kernels/quantised.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora::engine {
namespace {

// Tiles of so many rows begin with a block whatever the width.
constexpr std::int64_t kRowsOfTile = std::max(kNf4Block, kInt8Block);
constexpr std::int64_t kValuesOfTile = std::int64_t{1} << 20;
constexpr std::int64_t kBlocksAtATime = 64;

std::int64_t rows_of_tile(std::int64_t columns) {
  const std::int64_t rows = kValuesOfTile / std::max<std::int64_t>(1, columns);
  return std::max(kRowsOfTile, rows / kRowsOfTile * kRowsOfTile);
}

std::int64_t block_of(BaseDtype dtype) { return dtype == BaseDtype::nf4 ? kNf4Block : kInt8Block; }

// Codes of `count` values that begin with the block `first_block` of the matrix.
bool quantise(const float* values, std::int64_t count, BaseDtype dtype, std::uint8_t* codes,
              float* scales) {
  const std::int64_t block = block_of(dtype);
  std::atomic<bool> is_finite = true;
  at::parallel_for(
      0, (count + block - 1) / block, kBlocksAtATime, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * block;
        const std::int64_t size = std::min(end * block, count) - first;
        const bool is_good =
            dtype == BaseDtype::nf4
                ? quantise_nf4(values + first, size, codes + first / 2, scales + begin)
                : quantise_int8(values + first, size, reinterpret_cast<std::int8_t*>(codes) + first,
                                scales + begin);
        if (!is_good) is_finite = false;
      });
  return is_finite;
}

}  // namespace

QuantisedMatrix::QuantisedMatrix(const Checkpoint& checkpoint, const std::string& name,
                                 const Tensor& tensor, BaseDtype dtype, bool is_transposed)
    : dtype_(dtype) {
  at::Tensor source = view_of(tensor);
  source = source.reshape({-1, source.size(-1)});
  if (is_transposed) source = source.t();
  rows_ = source.size(0);
  columns_ = source.size(1);
  const std::int64_t count = rows_ * columns_;
  const std::int64_t block = block_of(dtype);
  const std::int64_t codes_in_byte = dtype == BaseDtype::nf4 ? 2 : 1;
  codes_ = at::empty({(count + codes_in_byte - 1) / codes_in_byte}, at::kByte);
  scales_ = at::empty({(count + block - 1) / block}, at::kFloat);
  const std::int64_t step = rows_of_tile(columns_);
  for (std::int64_t begin = 0; begin < rows_; begin += step) {
    const std::int64_t size = std::min(step, rows_ - begin);
    const at::Tensor tile = source.narrow(0, begin, size).to(at::kFloat).contiguous();
    const std::int64_t first = begin * columns_;
    if (!quantise(tile.const_data_ptr<float>(), tile.numel(), dtype,
                  codes_.mutable_data_ptr<std::uint8_t>() + first / codes_in_byte,
                  scales_.mutable_data_ptr<float>() + first / block))
      throw Error(ErrorKind::malformed,
                  "quantising the base: " + name +
                      " holds a value that is not finite, expected finite numbers")
          .in_file(checkpoint.path.string())
          .in_tensor(name);
    // The whole of a transposed matrix is read for each tile.
    if (!is_transposed) {
      const std::size_t row_bytes = tensor.bytes.size() / static_cast<std::size_t>(rows_);
      drop_pages(checkpoint.mappings,
                 tensor.bytes.subspan(static_cast<std::size_t>(begin) * row_bytes,
                                      static_cast<std::size_t>(size) * row_bytes));
    }
  }
  if (is_transposed) drop_pages(checkpoint.mappings, tensor.bytes);
}

QuantisedMatrix QuantisedMatrix::narrow(std::int64_t begin, std::int64_t count) const {
  QuantisedMatrix part = *this;
  part.first_row_ += begin;
  part.rows_ = count;
  return part;
}

void QuantisedMatrix::widen_row(std::int64_t row, float* out) const {
  const std::int64_t first = (first_row_ + row) * columns_;
  const auto* codes = codes_.const_data_ptr<std::uint8_t>();
  const auto* scales = scales_.const_data_ptr<float>();
  if (dtype_ == BaseDtype::nf4)
    widen_nf4(codes, scales, first, columns_, out);
  else
    widen_int8(reinterpret_cast<const std::int8_t*>(codes), scales, first, columns_, out);
}

void QuantisedMatrix::widen(std::int64_t begin, std::int64_t count, const at::Tensor& out) const {
  float* data = out.mutable_data_ptr<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, columns_));
  at::parallel_for(0, count, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) widen_row(begin + row, data + row * columns_);
  });
}

at::Tensor QuantisedMatrix::widened() const {
  at::Tensor out = at::empty({rows_, columns_}, at::kFloat);
  widen(0, rows_, out);
  return out;
}

}  // namespace lora::engine
