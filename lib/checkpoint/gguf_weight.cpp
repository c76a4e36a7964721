// The values of one tensor of a GGUF file, in the order and dtype of the model.
#include <algorithm>
#include <vector>

#include "checkpoint/gguf_base.h"
#include "lora/base/parallel.h"

namespace lora {
namespace {

// Row of the file that holds row `row` of the model: the file pairs value i of the first half of a
// head with value i of the second.
std::size_t stored_row(std::size_t row, std::size_t rows, std::size_t heads) {
  if (heads == 0) return row;
  const std::size_t head = rows / heads;
  const std::size_t half = head / 2;
  const std::size_t place = row % head;
  return row / head * head + place % half * 2 + place / half;
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
  // A bias of a rotated layer is a column: each of its values is a row.
  const bool is_column = weight.rotary_heads != 0 && tensor.shape.size() == 1;
  const std::size_t rows =
      tensor.shape.size() == 2 || is_column ? static_cast<std::size_t>(tensor.shape[0]) : 1;
  const std::size_t values = tensor.bytes.size() / tensor.format->bytes * tensor.format->values;
  if (values == 0) return Tensor::from_bytes(dtype, tensor.shape, {});
  const std::size_t columns = values / rows;
  const std::size_t row_bytes = columns * bits_of(dtype) / 8;
  const RowReader reader(tensor, rows);
  std::vector<std::byte> out(values * bits_of(dtype) / 8);
  constexpr std::size_t kRowsAtOnce = 64;
  parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, threads, [&](std::size_t block) {
    std::vector<double> row_values(columns);
    std::vector<float> scratch;
    const std::size_t end = std::min(rows, (block + 1) * kRowsAtOnce);
    for (std::size_t row = block * kRowsAtOnce; row < end; ++row) {
      reader.read(stored_row(row, rows, static_cast<std::size_t>(weight.rotary_heads)), row_values,
                  scratch);
      narrow(std::span<const double>(row_values), dtype, out.data() + row * row_bytes);
    }
  });
  return Tensor::from_bytes(dtype, tensor.shape, std::move(out));
}

}  // namespace lora
