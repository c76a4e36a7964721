// Feed-forward blocks of several experts (Mixtral, Qwen-MoE).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "engine/generic/layer_store.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

/// Gate, up and down of one block; the first two may be one matrix.
struct FeedForward {
  LoraSite* gate_up = nullptr;
  LoraSite *gate = nullptr, *up = nullptr;
  LoraSite* down = nullptr;
};
FeedForward make_feed_forward(LayerStore& store, const DecoderConfig& config,
                              const std::string& path, std::int64_t inner);
/// down(activation(gate(x)) * up(x)).
at::Tensor apply_feed_forward(const FeedForward& block, const std::string& activation,
                              const at::Tensor& x, const Pass& pass);

/// Experts take no adapters here; a shared expert does, as its layers are modules of their own.
class ExpertBlock {
 public:
  /// `layer` is "model.layers.0". Checkpoints hold the experts one by one under the names of their
  /// first release, or stacked as transformers 5 computes them.
  ExpertBlock(LayerStore& store, const Checkpoint& base, const DecoderConfig& config,
              const std::string& layer);
  at::Tensor apply(const at::Tensor& x, const Pass& pass) const;

 private:
  /// A frozen matrix in one of the two ways that it is kept.
  struct Matrix {
    at::Tensor base;
    std::optional<QuantisedMatrix> quantised;
    bool is_missing() const { return !base.defined() && !quantised; }
  };
  struct Expert {
    Matrix gate, up, down;
  };
  static Matrix whole(const Parameter& parameter);
  static Matrix part(const Parameter& stack, std::int64_t expert, std::int64_t begin,
                     std::int64_t rows);
  static at::Tensor product(const at::Tensor& x, const Matrix& weight);
  at::Tensor routed(const at::Tensor& rows, const Pass& pass) const;

  ExpertConfig config_;
  std::string activation_;
  Parameter* router_;
  std::vector<Expert> experts_;
  FeedForward shared_;
  LoraSite* shared_gate_ = nullptr;
};

}  // namespace lora::engine
