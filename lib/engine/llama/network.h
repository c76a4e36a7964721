// The layers of a decoder of the Llama kind and their parameters.
#pragma once

#include <deque>

#include "engine/adapter_binding.h"
#include "engine/linear.h"
#include "engine/parameter.h"

namespace lora::engine {

/// A linear layer whose outputs are several matrices side by side, or one layer for each of them.
class SplitLinear {
 public:
  SplitLinear(std::vector<Linear> linears, std::vector<std::int64_t> widths)
      : linears_(std::move(linears)), widths_(std::move(widths)) {}

  bool is_fused() const { return linears_.size() < widths_.size(); }
  std::vector<Linear>& linears() { return linears_; }
  const std::vector<Linear>& linears() const { return linears_; }
  std::int64_t width(std::size_t part) const { return widths_[part]; }
  std::int64_t total() const;
  /// Columns of `part` in the rows of a fused layer.
  at::Tensor slice(const at::Tensor& rows, std::size_t part) const;
  bool has_trainable() const;

 private:
  std::vector<Linear> linears_;
  std::vector<std::int64_t> widths_;
};

struct LlamaLayer {
  std::size_t index = 0;
  bool slides = false;  ///< sees a window of positions only
  /// Norms in front of a block and behind it; null where the family has none.
  Parameter *attention_before, *attention_behind, *mlp_before, *mlp_behind;
  SplitLinear qkv;
  Parameter *q_norm, *k_norm;  ///< in front of the rotation; null where the family has none
  Linear o;
  SplitLinear gate_up;
  Linear down;

  bool has_trainable_attention() const;
  bool has_trainable_mlp() const;
};

class LlamaNetwork {
 public:
  /// Throws Error(malformed) listing every parameter that the checkpoint lacks.
  explicit LlamaNetwork(const ModelOptions& options);

  Sites sites();
  /// First layer with something trainable, or layers.size(); 0 also when the embedding is
  /// trainable.
  std::size_t lowest_trainable_layer() const;

  const DecoderConfig& config() const { return config_; }
  const std::deque<Parameter>& parameters() const { return source_.parameters(); }

 private:
  DecoderConfig config_;
  ParameterSource source_;

 public:
  Parameter& embedding;
  std::deque<LlamaLayer> layers;
  Parameter& final_norm;
  Linear head;

 private:
  LlamaLayer make_layer(std::int64_t index);
  Linear make_linear(const std::string& path, std::int64_t inputs, std::int64_t outputs,
                     bool has_bias);
};

}  // namespace lora::engine
