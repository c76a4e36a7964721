// The configuration of an adapter whose source had none, from its keys and the person's flags.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/strength.h"
#include "lora/ops/save.h"

namespace lora {

/// What the names and shapes of an adapter's tensors say about its configuration, and what they
/// cannot say.
struct KeySurvey {
  std::map<std::string, std::int64_t> ranks;  ///< by the path that PEFT's patterns match
  bool has_magnitude = false;
  bool has_lora_bias = false;
  BiasMode bias = BiasMode::none;
  std::vector<std::string> saved_modules;  ///< last components, sorted
  /// Fields that only adapter_config.json holds, with the module that needs them
  /// ("trainable_token_indices (model.embed_tokens)"); empty: everything can be derived.
  std::vector<std::string> unknowable;
};

/// `tensors` by clean peft_key. Factors without two dimensions or more are left to the accounting
/// of keys.
KeySurvey survey_keys(const TensorMap& tensors);

/// `r` is the most frequent rank (the smallest of equals), the others go into rank_pattern under
/// their whole paths.
void set_ranks(AdapterConfig& config, const std::map<std::string, std::int64_t>& ranks);

/// target_modules for exactly these modules: last components where they select exactly them among
/// `known_modules` (every module path as far as known), otherwise the whole paths.
std::vector<std::string> target_names(const std::set<std::string>& adapted,
                                      const std::vector<std::string>& known_modules);

/// Throws Error(usage) when alpha, rsLoRA or task are missing in `flags`, or when the tensors need
/// a field that only a configuration holds.
AdapterConfig config_from_keys(const TensorMap& tensors, const SaveFlags& flags,
                               const std::vector<std::string>& known_modules,
                               const std::string& source);

}  // namespace lora
