// convert: an adapter whose initialisation changed the base (PiSSA, OLoRA, CorDA, LoRA-GA) as a
// plain LoRA adapter for the base as it is.
//
// Training began at W - s B0 A0 + s B0 A0. What was learned is s (B A - B0 A0) = s [B, -B0] [A;
// A0]: twice the rank at the same scaling, as PEFT's conversion writes it
// (save_pretrained(path_initial_model_for_weight_conversion=...)).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/sinks.h"
#include "lora/ops/derived.h"

namespace lora {

struct Checkpoint;

/// Exactly one of `initial` and `base`.
struct MakePlainOptions {
  const Adapter* adapter = nullptr;  ///< trained
  const Adapter* initial = nullptr;  ///< the same before training: holds A0 and B0
  const Checkpoint* base = nullptr;  ///< original: PiSSA and OLoRA find A0 and B0 in it again
  bool any_base = false;             ///< also when the adapter records another one
  DerivedOptions output;
  Sinks sinks;
};

struct PlainModule {
  std::string module_path;
  std::int64_t rank_before = 0, rank_after = 0;  ///< equal where the initialisation left the base
};

struct MakePlainReport {
  DerivedReport result;
  std::string init;  ///< what init_lora_weights said
  std::vector<PlainModule> modules;
  /// Between the trained updates and the first factors, over all modules; below a half a note says
  /// that the origin may be another. Absent when either is zero.
  std::optional<double> beginning_cosine;
};

/// Throws Error(usage) for no or two origins, or an output that is or holds an input;
/// Error(incompatible) when the initial adapter has other modules, ranks or scalings, or the base
/// does not fit or is not the recorded one; Error(unsupported) for adapters that are plain already
/// and initialisations with no conversion (loftq; from the base also corda, lora_ga and
/// pissa_niter_N) and for kinds of layers that PEFT does not convert; Error(malformed) for unsound
/// adapters; Error(output) when the output exists or cannot be written.
MakePlainReport make_plain(const MakePlainOptions& options);

}  // namespace lora
