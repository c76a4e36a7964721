// The layers of a Llama-like decoder and their parameters.
#pragma once

#include <deque>

#include "engine/adapter_binding.h"
#include "engine/linear.h"
#include "engine/parameter.h"

namespace lora::engine {

struct LlamaLayer {
  Parameter* attention_norm;
  Linear q, k, v, o;
  Parameter* mlp_norm;
  Linear gate, up, down;

  bool has_trainable_attention() const;
  bool has_trainable_mlp() const;
};

class LlamaNetwork {
 public:
  /// Throws Error(malformed) listing every parameter that the checkpoint lacks.
  LlamaNetwork(const Checkpoint& checkpoint, Compute compute);

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
