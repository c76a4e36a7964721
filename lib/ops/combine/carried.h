// What a combination takes over beside the updates: targets, saved modules, biases, token rows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "ops/combine/sites.h"

namespace lora::combining {

struct Carried {
  /// Saved modules, biases, rows of tokens, by clean peft_key.
  TensorMap tensors;
  std::vector<std::string> base_names;  ///< base parameters among them, sorted
  /// The first adapter's, with the targets, saved modules, bias mode and token indices of all.
  /// Ranks and alphas are not settled.
  AdapterConfig config;
  std::vector<std::string> notes;
};

/// Throws Error(incompatible) naming everything that two adapters bring in different versions, and
/// everything else that keeps them from being one adapter. With `saved_from`, a position in the
/// list, that adapter's versions are taken.
Carried carry_over(const std::vector<const Adapter*>& adapters, const std::vector<Site>& sites,
                   std::optional<std::size_t> saved_from);

/// What speaks against one base for all adapters, each a sentence that names two of them.
struct BaseDoubts {
  std::vector<std::string> contradictions;  ///< other roots or weights in their manifests
  std::vector<std::string> suspicions;      ///< other names, which prove nothing
};
BaseDoubts base_doubts(const std::vector<const Adapter*>& adapters);

}  // namespace lora::combining
