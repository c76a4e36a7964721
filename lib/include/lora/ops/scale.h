// scale: how strongly an adapter is applied, changed or moved between lora_alpha and the factors.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/ops/derived.h"

namespace lora {

/// Exactly one of the four.
struct ScaleOptions {
  const Adapter* adapter = nullptr;
  std::optional<double> set;     ///< the scaling of every site becomes this
  std::optional<double> times;   ///< the scaling of every site is multiplied by this
  bool fold = false;             ///< scaling 1: what it was goes into B, the update stays
  std::optional<double> unfold;  ///< this scaling: B is divided by it, the update stays
  DerivedOptions output;
};

struct ScaledModule {
  std::string module_path;
  std::int64_t rank = 0;
  double alpha_before = 0, scaling_before = 0;
  double alpha_after = 0, scaling_after = 0;
};

struct ScaleReport {
  DerivedReport result;
  std::vector<ScaledModule> modules;  ///< sorted by module_path
  /// fold and unfold: the largest relative difference of the update, by the rounding of B (and of
  /// biases); 0 where every product was exact.
  double rounding = 0;
};

/// Throws Error(usage) for no or several requests, numbers that are not finite and an unfold of 0;
/// Error(malformed) for an unsound adapter; Error(unsupported) for initialisations that change the
/// base; Error(incompatible) for values that leave the range of their dtype, by name; Error(output)
/// when the output exists or cannot be written.
ScaleReport scale(const ScaleOptions& options);

}  // namespace lora
