// Experts whose names moved between two layouts: one module an expert ("experts.3.gate_proj"), and
// one parameter for all of them ("experts.gate_up_proj", where gate and up are one).
#pragma once

#include <optional>
#include <set>
#include <string>

#include "ops/rules/rule.h"

namespace lora::rules {

struct ExpertNames {
  std::string message;
  std::string module;             ///< the first one concerned
  std::set<std::string> modules;  ///< module paths that the message explains
};

/// Modules of single experts where the base holds their stack in fused parameters, with the
/// parameters they map to and those that cannot be mapped (half a fused pair, an expert or a shape
/// that the stack does not have). nullopt when the adapter has none.
std::optional<ExpertNames> single_experts_on_fused_base(const Subject& subject);

/// The reverse: factors on a stack of experts where the base has a module for each expert.
std::optional<ExpertNames> fused_experts_on_single_base(const Subject& subject);

}  // namespace lora::rules
