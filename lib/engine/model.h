// What the engine knows of a model family: named parameters, forward, loss with gradients.
//
// A family is one implementation of Model. The training loop, generation and probes see nothing
// else, so a model of a wholly different kind can join without touching them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/loss_settings.h"
#include "lora/engine.h"

namespace lora::engine {

/// All trainable numbers of a model in one flat f32 buffer, with gradients in another of the same
/// layout: the optimizer makes one pass, clipping is one norm.
struct TrainableParameter {
  std::string peft_key;  ///< name in the adapter file
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;         ///< first element in the flat buffers; tied ones share it
  DType saved_dtype = DType::f32;  ///< F32 for LoRA factors, the base's dtype for saved modules
};
struct FlatParameters {
  at::Tensor values;     ///< f32 [n]
  at::Tensor gradients;  ///< f32 [n], zeroed by the loop, accumulated by loss_and_gradients
  std::vector<TrainableParameter> layout;
};

/// Names the random numbers of one micro-batch (dropout masks are a function of these and nothing
/// else, so an interrupted run draws the same ones again), and says what its loss is.
struct StepContext {
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t micro_batch = 0;
  LossSettings loss{};
};

struct LossSum {
  double sum = 0;          ///< sum of the per-position losses
  std::int64_t count = 0;  ///< number of positions
};

class Model : public EngineModel {
 public:
  /// The trainable parameters; empty layout unless loaded with ModelOptions::trainable.
  virtual FlatParameters& trainable() = 0;

  /// Adds gradient_scale * d(loss sum)/d(parameter) of this batch to the flat gradients. The caller
  /// passes 1 / (positions of the whole accumulated batch), so that accumulation equals one large
  /// batch whatever the padding.
  virtual LossSum loss_and_gradients(const Batch& batch, double gradient_scale,
                                     const StepContext& context) = 0;

  /// Plain cross entropy, without gradients or dropout (evaluation).
  virtual LossSum loss(const Batch& batch) = 0;

  /// Trade time for memory: keep only each layer's input and recompute the rest in backward.
  virtual void set_layer_checkpointing(bool enabled) = 0;
};

/// Builds the family that the base's config names. Throws Error(unsupported) for a model_type
/// without an implementation, Error(incompatible) for an adapter that does not fit (all offenders
/// listed).
std::unique_ptr<Model> make_model(const ModelOptions& options);

}  // namespace lora::engine
