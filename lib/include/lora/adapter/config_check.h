// Everything that is wrong with an adapter_config.json, at once.
//
// parse_adapter_config (lora/adapter/config.h) stops at the first violation, as PEFT does. This is
// for reporting: it goes on, so that one run names every violation and the tensors can still be
// looked at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/config.h"

namespace lora {

struct ConfigProblem {
  std::string field;    ///< "r", "rank_pattern"
  std::string message;  ///< one line: field, what was found, what was expected
};

/// The rank of a configuration whose `r` says none: nothing can be compared with it, and factors of
/// stacked experts cannot be taken apart.
inline constexpr std::int64_t kNoRank = 0;

struct CheckedConfig {
  /// What could be read. A member in violation has its default, a pattern that does not compile is
  /// left out, of a key given twice the last counts (as in Python). An `r` of the wrong type is
  /// read where it spells a rank ("8", 8.0), and kNoRank where not.
  AdapterConfig config;
  std::vector<ConfigProblem> problems;  ///< in the order: duplicates, types, expressions, conflicts
};

/// Checks the text of an adapter_config.json: keys given twice, a missing peft_type, types and
/// ranges, expressions that do not compile, find_conflicts. Throws Error(malformed) only when the
/// text is no JSON object, Error(unsupported) for a peft_type other than LORA. `context` is the
/// path used in messages.
CheckedConfig check_adapter_config(std::string_view text, const std::string& context);

/// All that PEFT's LoraConfig or its LoRA layers refuse although each value is fine alone: an
/// unknown task_type or init_lora_weights, layers_to_transform with a regular expression, two
/// variants at once, ... Each text fits into a message.
std::vector<ConfigProblem> find_conflicts(const AdapterConfig& config);

/// Names of the LoRA variants (use_dora, arrow_config, "mica", ...) that are switched on, in the
/// order of LoraConfig's fields. PEFT supports at most one.
std::vector<std::string> active_variants(const AdapterConfig& config);

}  // namespace lora
