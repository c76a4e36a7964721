#include "engine/batch.h"

namespace lora::engine {

bool begins_document(const Batch& batch, std::int64_t row, std::int64_t t) {
  if (batch.starts.empty()) return t == 0;
  return batch.starts[static_cast<std::size_t>(row * batch.columns + t)] == t;
}

std::int64_t supervised_count(const Batch& batch) {
  if (!batch.y.shape.empty()) return batch.y.dtype == DType::i64 ? batch.rows : batch.y.numel();
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < batch.rows; ++row)
    for (std::int64_t t = 0; t < batch.columns; ++t)
      if (batch.labels[static_cast<std::size_t>(row * batch.columns + t)] != kIgnoredLabel &&
          !(batch.is_shifted && begins_document(batch, row, t)))
        ++count;
  return count;
}

}  // namespace lora::engine
