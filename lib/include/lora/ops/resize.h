// resize: the same update at other ranks.
//
// A smaller rank keeps the best approximation of each update (Eckart-Young: the largest singular
// values of s B A, computed in f64 from the factors), a larger one pads with zeros and keeps every
// bit of the update. Each site keeps its scaling; lora_alpha and the patterns follow the ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/ops/derived.h"

namespace lora {

/// Exactly one of `rank` and/or `rank_pattern`, `energy`, `budget`.
struct ResizeOptions {
  const Adapter* adapter = nullptr;
  std::optional<std::int64_t> rank;  ///< of every site
  /// Ranks by PEFT's patterns, first match first; other sites get `rank`, or keep theirs.
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;
  std::optional<double> energy;         ///< share of the squared norm each site keeps: (0, 1]
  std::optional<std::uint64_t> budget;  ///< bytes of adapter_model.safetensors, all sites together
  DerivedOptions output;  ///< recomputed factors are F32 unless `dtype` says otherwise
};

struct ResizedModule {
  std::string module_path;
  std::int64_t rank_before = 0, rank_after = 0;
  double norm = 0;   ///< of the update before, Frobenius
  double kept = 1;   ///< share of its square; 1 where the update is zero
  double error = 0;  ///< norm of what is lost
};

struct ResizeReport {
  DerivedReport result;
  std::vector<ResizedModule> modules;  ///< sorted by module_path
  double kept = 1;                     ///< of all updates together
  std::uint64_t bytes_before = 0;      ///< of all tensors
  std::uint64_t file_bytes = 0;        ///< of adapter_model.safetensors
};

/// Throws Error(usage) for a request that has no meaning (no or several goals, an energy outside
/// (0, 1], a budget below the least, a rank above what any site can have, a pattern that matches
/// nothing, an output that is or holds the adapter); Error(malformed) for an unsound adapter;
/// Error(unsupported) for kinds whose rank means more than factors (KaSA, BD-LoRA, MonteCLoRA,
/// VeLoRA, initialisations that change the base), all of them by name; Error(output) when the
/// output exists or cannot be written.
ResizeReport resize(const ResizeOptions& options);

}  // namespace lora
