// Initialisations that take the first factors out of the base's weights: PiSSA and OLoRA.
//
// Formulas are PEFT's (pissa_init and olora_init of tuners/lora/layer.py). PEFT keeps nothing of
// them in the file: whoever loads the adapter takes the same factors out of the base again. A
// layer's weight is then W - scaling * B0 A0, and the trained factors are added to that.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/base/module.h"
#include "lora/engine.h"

namespace lora::engine {

struct BaseChange {
  enum class Method { svd, randomised_svd, qr };
  Method method = Method::svd;
  std::int64_t iterations = 0;  ///< of the randomised SVD
};

/// What init_lora_weights asks for; nullopt when it leaves the base alone. Throws
/// Error(unsupported) for initialisations that need more than the weights (corda, loftq, lora_ga).
std::optional<BaseChange> base_change_of(const AdapterConfig& config);

/// Whether the change depends on random numbers, which PEFT draws anew on each load.
bool is_random_change(const AdapterConfig& config);

/// One layer as its first factors depend on it.
struct ChangedLayer {
  std::string module_path;  ///< names the random numbers of the randomised SVD
  LayerKind kind = LayerKind::linear;
  std::int64_t rank = 0;
  double scaling = 0;
};

struct FactorPair {
  at::Tensor a;  ///< f32 [rank, in]
  at::Tensor b;  ///< f32 [out, rank]
};

/// A0 and B0 for a weight as it is stored. Throws Error(unsupported) for what PEFT has no such
/// initialisation for (embeddings, OLoRA on GPT-2's Conv1D), Error(incompatible) for a rank that
/// the weight does not have or a scaling that is not above 0.
FactorPair first_factors(const BaseChange& change, const ChangedLayer& layer,
                         const at::Tensor& weight);

/// The weight without scaling * B0 A0, in its own layout and dtype.
at::Tensor without_factors(const BaseChange& change, const ChangedLayer& layer,
                           const at::Tensor& weight, const FactorPair& factors);

/// The first factors of every module of an adapter under their peft_keys, from the base's weights
/// in the dtype that a model of `compute` holds them in. Empty when the adapter leaves the base
/// alone.
TensorMap first_factors_of(const Adapter& adapter, const Checkpoint& base, Compute compute);

/// The pair of one module among them. Throws Error(malformed) when it is missing.
FactorPair known_factors(const TensorMap& first_factors, const std::string& module_path);

}  // namespace lora::engine
