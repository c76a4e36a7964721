// What a merged checkpoint should hold, tensor by tensor, in terms the replay computes with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/tensor.h"
#include "lora/ops/verify_merged.h"
#include "ops/replay/kernels.h"

namespace lora::replay {

/// One product scaling * b . a added to a weight, in the order of PEFT's merge.
struct Addition {
  Tensor a;  ///< [r, columns], or [r, rows] when transposed
  Tensor b;
  bool is_transposed = false;  ///< (b . a)^T is added
  double scaling = 0;          ///< of one application
  /// PEFT rounds this update to the weight's dtype in its plain merge too (embeddings, in_proj of
  /// nn.MultiheadAttention, target_parameters).
  bool always_rounds = false;
  /// Nor does its safe_merge round this one (lora_bias, the second update of out_proj).
  bool never_rounds = false;
};

/// Rows [first_row, first_row + rows) of a target and what is added to them.
struct Block {
  std::int64_t first_row = 0, rows = 0;
  std::vector<Addition> additions;
};

struct Target {
  std::string base_name;
  std::string module_path;
  Tensor base;  ///< the value before additions: the base's, or the adapter's copy (`is_saved`)
  Tensor merged;
  bool is_saved = false;
  int adapters = 0;                    ///< whose factors are added
  std::int64_t rows = 1, columns = 0;  ///< the tensor as a matrix
  std::vector<Block> blocks;           ///< cover all rows; empty: nothing is added
  std::optional<Tensor> magnitude;     ///< DoRA
  bool is_norm_by_column = false;      ///< DoRA of weights stored [in, out]
  /// Rows that are replaced last (trainable tokens): row index and row of `token_rows`, sorted.
  std::vector<std::pair<std::int64_t, std::int64_t>> replaced_rows;
  Tensor token_rows;
  /// Row of token_rows that replaces this row of the target.
  std::optional<std::int64_t> token_of(std::int64_t row) const;
  /// Nothing is computed: the merged bytes must be these.
  bool is_copy() const;
  std::string misshaped;     ///< found and expected shape; empty when they agree
  std::string not_replayed;  ///< why this target cannot be replayed; empty when it can
};

/// Arithmetic of one way to merge.
struct Rounding {
  DType compute = DType::f32;   ///< dtype of the weight while merging
  bool rounds_update = false;   ///< safe_merge: the update is rounded to it first
  bool rounds_factors = false;  ///< the adapter was held in it
};

/// The ways a target may have been merged, the likeliest first; none for dtypes other than F32,
/// F16 and BF16.
std::vector<Rounding> roundings_of(const Target& target, bool rounds_factors);

struct Outcome {
  MergeProof proof = MergeProof::differs;
  DType compute = DType::f32;
  Sums sums;
  std::int64_t outside = 0, first_outside = -1;
  double found = 0, expected = 0, worst_ulps = 0;
  bool fits() const { return proof != MergeProof::differs && proof != MergeProof::not_replayed; }
};

/// Compares every target with its replay; outcome i belongs to target i. The result does not depend
/// on the number of threads.
std::vector<Outcome> replay(const std::vector<Target>& targets, int threads, const Sinks& sinks);

}  // namespace lora::replay
