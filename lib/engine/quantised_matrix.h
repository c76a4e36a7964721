// A frozen matrix [out, in] that is kept in 4 or 8 bits and widened where it is multiplied with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "engine/workspace.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

class QuantisedMatrix {
 public:
  /// Quantises a tensor of a checkpoint, a few megabytes at a time, and lets go of the pages of its
  /// file that were read. All dimensions but the last are rows. `is_transposed`: stored as
  /// [in, out], as GPT-2's Conv1D. Throws Error(malformed) naming the tensor when a value is not
  /// finite.
  QuantisedMatrix(const Checkpoint& checkpoint, const std::string& name, const Tensor& tensor,
                  BaseDtype dtype, bool is_transposed);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  BaseDtype dtype() const { return dtype_; }
  std::int64_t bytes() const { return codes_.nbytes() + scales_.nbytes(); }

  /// The rows from `begin` on as a matrix over the same codes.
  QuantisedMatrix narrow(std::int64_t begin, std::int64_t count) const;

  /// f32 [count, columns], the rows from `begin` on, on all threads.
  void widen(std::int64_t begin, std::int64_t count, const at::Tensor& out) const;
  /// One row on this thread.
  void widen_row(std::int64_t row, float* out) const;
  /// All of it as f32 [rows, columns].
  at::Tensor widened() const;

 private:
  BaseDtype dtype_;
  std::int64_t rows_ = 0, columns_ = 0;
  std::int64_t first_row_ = 0;
  at::Tensor codes_;   ///< bytes
  at::Tensor scales_;  ///< f32, one a block
};

/// y [rows, out] = x [rows, in] . weight^T, in f32 whatever activations are kept in.
void multiply(const at::Tensor& x, const QuantisedMatrix& weight, at::Tensor& y,
              Workspace& workspace);

/// dx [rows, in] = g [rows, out] . weight, or += with `accumulate`, in f32.
void multiply_transposed(const at::Tensor& g, const QuantisedMatrix& weight, at::Tensor& dx,
                         bool accumulate, Workspace& workspace);

}  // namespace lora::engine
