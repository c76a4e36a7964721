// The values of one tensor of a GGUF file, in the order and dtype of the model.
#include <algorithm>
#include <vector>

#include "checkpoint/gguf_base.h"
#include "lora/base/parallel.h"

namespace lora {
namespace {

// Row of the file that holds row `row` of the model.
std::size_t stored_row(const GgufWeight& weight, std::size_t row, std::size_t rows) {
  if (weight.rows == GgufRows::same) return row;
  const auto heads = static_cast<std::size_t>(weight.heads);
  const std::size_t head = rows / heads;
  const std::size_t place = row % head;
  if (weight.rows == GgufRows::thirds) {
    const std::size_t third = head / 3;
    return place / third * (heads * third) + row / head * third + place % third;
  }
  // The file pairs value i of the first half of a head with value i of the second.
  const std::size_t half = head / 2;
  return row / head * head + place % half * 2 + place / half;
}

std::size_t product(const std::vector<std::int64_t>& shape) {
  std::size_t values = 1;
  for (const std::int64_t extent : shape) values *= static_cast<std::size_t>(extent);
  return values;
}

class RowReader {
 public:
  RowReader(const GgufTensor& tensor, std::size_t rows)
      : format_(*tensor.format), bytes_(tensor.bytes), row_bytes_(bytes_.size() / rows) {}

  // `out` has the values of the row.
  void read(std::size_t row, std::span<double> out, std::vector<float>& scratch) const {
    const auto part = bytes_.subspan(row * row_bytes_, row_bytes_);
    if (format_.storage) {
      widen(*format_.storage, part.data(), out);
      return;
    }
    scratch.resize(out.size());
    dequantise(format_, part, scratch);
    std::copy(scratch.begin(), scratch.end(), out.begin());
  }

 private:
  const GgufFormat& format_;
  std::span<const std::byte> bytes_;
  std::size_t row_bytes_;
};

}  // namespace

Tensor load_gguf_weight(const GgufWeight& weight, DType dtype, int threads) {
  const GgufTensor& tensor = *weight.tensor;
  const std::size_t values = product(weight.shape);
  if (values == 0) return Tensor::from_bytes(dtype, weight.shape, {});
  // A bias in another order is a column: each of its values is a row.
  const bool is_column = weight.rows != GgufRows::same && weight.shape.size() == 1;
  const std::size_t rows = weight.is_transposed ? static_cast<std::size_t>(weight.shape[1])
                           : weight.shape.size() == 2 || is_column
                               ? static_cast<std::size_t>(weight.shape[0])
                               : 1;
  const std::size_t columns = values / rows;
  const std::size_t parts = product(tensor.shape) / values;
  const std::size_t bytes = bits_of(dtype) / 8;
  const RowReader reader(tensor, rows * parts);
  const std::size_t first = static_cast<std::size_t>(weight.part) * rows;
  std::vector<std::byte> out(values * bytes);
  constexpr std::size_t kRowsAtOnce = 64;
  parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, threads, [&](std::size_t block) {
    const std::size_t begin = block * kRowsAtOnce;
    const std::size_t count = std::min(rows - begin, kRowsAtOnce);
    std::vector<double> block_values(columns * (weight.is_transposed ? count : 1));
    std::vector<double> column(count);
    std::vector<float> scratch;
    for (std::size_t i = 0; i < count; ++i) {
      const std::span<double> row(block_values.data() + (weight.is_transposed ? i * columns : 0),
                                  columns);
      reader.read(first + stored_row(weight, begin + i, rows), row, scratch);
      if (weight.adds_one)
        for (double& value : row) value -= 1;
      if (!weight.is_transposed)
        narrow(std::span<const double>(row), dtype, out.data() + (begin + i) * columns * bytes);
    }
    for (std::size_t c = 0; weight.is_transposed && c < columns; ++c) {
      for (std::size_t i = 0; i < count; ++i) column[i] = block_values[i * columns + c];
      narrow(std::span<const double>(column), dtype, out.data() + (c * rows + begin) * bytes);
    }
  });
  return Tensor::from_bytes(dtype, weight.shape, std::move(out));
}

}  // namespace lora
