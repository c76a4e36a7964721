// Every site and parameter of an adapter against the modules of a base: what is missing, what
// nothing explains, what has another shape. `fit` and the rules of verify read the same account.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Something of the file that configuration and base do not explain.
struct UnexpectedSite {
  enum class Reason { not_in_base, not_targeted };
  std::string name;  ///< a module_path, or a base_name for a saved parameter
  Reason reason = Reason::not_in_base;
  std::string nearest;  ///< not_in_base: the module that resembles it most, may be empty
  std::string cause;    ///< not_targeted: the field that decides it, may be empty
};

/// Something that configuration and base ask for and the file does not have.
struct MissingPart {
  std::string name;  ///< module_path, or base_name for a bias or a parameter of a saved module
  enum class Kind { factors, saved, bias, tokens } kind = Kind::factors;
};

struct MisshapedSite {
  std::string name;             ///< a module_path, or a base_name for a saved parameter
  std::string found, expected;  ///< "[64, 16]"
  std::string cause;            ///< likely reason, empty when there is no telling
  /// Only the number of rows of an embedding or an output head differs: LV316 says so.
  bool is_vocabulary = false;
};

struct Accounting {
  std::size_t expected_sites = 0;  ///< sites with factors, saved modules and token rows
  std::vector<UnexpectedSite> unexpected;
  std::vector<MissingPart> missing;  ///< nothing that is already one of the adapter's `problems`
  std::vector<MisshapedSite> misshaped;
};

/// `modules` and `targets` are those of the base (list_modules, resolve_targets).
Accounting account(const Adapter& adapter, const Checkpoint& base, const ModuleList& modules,
                   const ResolvedTargets& targets);

/// "not in the base, nearest model.layers.0.mlp" or "not targeted: exclude_modules takes it out".
std::string describe(const UnexpectedSite& site);
/// "" for factors, " (module to save)", " (bias)", " (token rows)".
std::string describe(MissingPart::Kind kind);

}  // namespace lora
