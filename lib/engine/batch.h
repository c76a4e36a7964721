// One micro-batch as the training loop hands it to a model; torch-free.
#pragma once

#include <cstdint>
#include <vector>

#include "lora/base/tensor.h"

namespace lora::engine {

inline constexpr std::int64_t kIgnoredLabel = -100;

/// Token models: `input_ids` and `labels` are [rows, columns] row major, right-padded; `lengths`
/// holds the valid length of each row. labels[t] belongs to input_ids[t] as in transformers (a
/// causal model shifts by one); kIgnoredLabel marks positions without loss.
/// A row may hold several documents, one behind the other: `starts` has for each position the
/// column in which its document begins (padding: its own), or is empty when each row is one
/// document. Documents do not see each other, their positions count from 0, and the first token of
/// one is nobody's target.
/// Sequence classifiers use input_ids and lengths with `y`: I64 [rows] classes, or F32 [rows] or
/// [rows, labels] values.
/// An mlp uses `x` F32 [rows, features] and `y` (I64 [rows]: classes; F32 [rows, outputs]: values).
struct Batch {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::int64_t> input_ids;
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> starts;
  bool is_shifted = true;  ///< labels are for a causal model: the first of a row counts for nothing
  Tensor x;
  Tensor y;
};

/// True when column `t` of a row is the first of its document. With one document a row that is
/// column 0.
bool begins_document(const Batch& batch, std::int64_t row, std::int64_t t);

/// Number of terms of the loss: supervised positions, or rows (classes) / elements
/// (values) of a batch with `y`.
std::int64_t supervised_count(const Batch& batch);

}  // namespace lora::engine
