// Outputs of two models on the same input.
#pragma once

#include <optional>

#include "lora/ops/output_difference.h"

namespace lora {

struct Adapter;
struct Checkpoint;
class Engine;

/// A checkpoint, with an adapter on it or without.
struct ModelSide {
  const Checkpoint* base = nullptr;
  const Adapter* adapter = nullptr;
};

struct OutputDiff {
  OutputDifference difference;               ///< a against b
  std::optional<OutputDifference> effect_a;  ///< a's bare base against a; absent without adapter
  std::optional<OutputDifference> effect_b;
};

/// Runs both sides in f32 on probe_inputs(*a.base). Throws Error(incompatible) when the outputs
/// have different sizes, and as the engine and probe_inputs do.
OutputDiff diff_outputs(Engine& engine, const ModelSide& a, const ModelSide& b);

}  // namespace lora
