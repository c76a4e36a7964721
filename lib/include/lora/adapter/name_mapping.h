// Renamed module trees: which module of a base a module of an adapter has become.
//
// Libraries rename modules between versions (vision-language models gained `language_model`), and
// trainers put prefixes of their own in front. The modules then have other paths and equal ends:
// `model.layers.3.mlp.up_proj` is `model.language_model.layers.3.mlp.up_proj`.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lora {

/// A front that changed: "model." became "model.language_model.". Indices in it are written `*`;
/// an empty text is a front that is absent.
struct RenameRule {
  std::string from;
  std::string to;
  std::size_t modules = 0;  ///< renamed by this rule
};

struct NameMapping {
  /// module_path in the adapter -> module_path in the base, only where exactly one fits.
  std::map<std::string, std::string> renames;
  std::vector<RenameRule> rules;  ///< what `renames` does, most modules first
  /// module_path in the adapter -> the modules it may be, sorted.
  std::map<std::string, std::vector<std::string>> ambiguous;
  std::vector<std::string> unmatched;  ///< no module of the base resembles it, sorted
  std::size_t unchanged = 0;           ///< modules that the base has under their own path

  /// Every module is known to be one module of the base.
  bool is_complete() const { return ambiguous.empty() && unmatched.empty(); }
};

/// May this module of the adapter be that module of the base (by shape, say)?
using MayBe = std::function<bool(const std::string& adapter_path, const std::string& base_path)>;

/// Matches paths by their longest common end (in whole components), then by their longest common
/// beginning; layer indices must be equal. Where several modules fit equally well, a rule that
/// other modules follow without ambiguity decides, and nothing else: what it leaves open stays
/// ambiguous, as do two modules that would become one. `base_layer` components inside
/// `adapter_paths` (LoRA inside another LoRA layer) are kept where they are.
NameMapping map_names(const std::vector<std::string>& adapter_paths,
                      const std::vector<std::string>& base_paths, const MayBe& may_be = {});

/// "model.* -> model.language_model.* (28 modules)", rules behind each other; for messages.
std::string describe_rules(const NameMapping& mapping);

/// The module of the base that resembles this path most (longest common end, then beginning);
/// empty when not even the last component occurs.
std::string nearest_name(const std::string& path, const std::vector<std::string>& base_paths);

}  // namespace lora
