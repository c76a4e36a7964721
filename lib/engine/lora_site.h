// A layer that takes adapters, and what adapters put there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/parameter.h"
#include "lora/base/module.h"

namespace lora::engine {

/// One adapter's part of a layer, all f32. Plain LoRA: y += scaling * (x a^T) b^T (+ scaling *
/// bias). Gradients are views of the flat gradients, undefined while frozen.
struct LoraBranch {
  at::Tensor a;          ///< [rank, in]; embeddings [rank, rows]
  at::Tensor b;          ///< [out, rank]; embeddings [width, rank]
  at::Tensor bias;       ///< [out] or undefined
  at::Tensor magnitude;  ///< [out] or undefined (DoRA)
  at::Tensor norm;       ///< [out], DoRA's norm while it cannot change; undefined: to be computed
  at::Tensor weight_squares;  ///< f64 [out], |W|^2 for DoRA's norm; undefined: to be computed
  at::Tensor a_gradient, b_gradient, bias_gradient, magnitude_gradient;
  double scaling = 1;
  double dropout = 0;
  std::uint64_t stream = 0;  ///< of the dropout mask
  bool is_trainable() const { return a_gradient.defined(); }
};

struct LoraSite {
  std::string module_path;
  LayerKind kind = LayerKind::linear;  ///< linear, conv1d or embedding
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;  ///< null without one
  std::vector<LoraBranch> branches;

  /// Columns of A; of an embedding the rows of its table.
  std::int64_t inputs() const { return weight->shape[kind == LayerKind::linear ? 1 : 0]; }
  /// Rows of B; of an embedding its width.
  std::int64_t outputs() const { return weight->shape[kind == LayerKind::linear ? 0 : 1]; }
  bool has_trainable() const;
};

/// What a pass through the model is for.
struct Pass {
  bool with_adapters = true;
  const StepContext* dropout = nullptr;  ///< null: no dropout
};

/// Key of a dropout mask: a function of the run's seed, the place and the micro-batch.
std::uint64_t dropout_key(std::uint64_t stream, const StepContext& context);

inline bool is_dropping(const LoraBranch& branch, const Pass& pass) {
  return pass.dropout != nullptr && branch.dropout > 0;
}

}  // namespace lora::engine
