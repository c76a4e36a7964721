// Tensors and configuration of an extracted adapter.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "ops/extract/factors.h"
#include "ops/extract/survey.h"

namespace lora::extraction {

/// What is carried whole: its tensors by peft_key, and one entry each for the report.
struct Carried {
  TensorMap tensors;
  std::vector<CarriedPart> parts;
};
Carried carried_of(const Survey& survey, const Checkpoint& tuned);

/// The smallest configuration that makes PEFT build these sites and nothing else, each with
/// lora_alpha equal to its rank. `factors` by position in survey.sites; those of rank 0 are no
/// sites. Throws Error(unsupported) when no configuration selects exactly these modules.
AdapterConfig config_of(const Survey& survey, const std::vector<Factors>& factors,
                        const Checkpoint& base, const ModuleList& modules);

/// The key of a site's factor.
std::string key_of(const Site& site, bool is_a);

}  // namespace lora::extraction
