// Which modules an adapter configuration selects, resolved exactly as PEFT 0.21.2 does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/base/module.h"

namespace lora {

/// A bare parameter that target_parameters selects.
struct ParameterTarget {
  /// Site of its LoRA layer. Parameters of one module nest: the one registered first is innermost
  /// and has a `base_layer` component for every later one.
  std::string module_path;
  std::string base_name;                   ///< "mlp.experts.gate_up_proj"
  std::vector<std::int64_t> weight_shape;  ///< 2-D, or [experts, ., .]
};

struct ResolvedTargets {
  /// Modules that get LoRA layers, in model order, under their paths in the base. Those inside a
  /// module of `parameters` have `base_layer` components in files (see without_base_layers);
  /// LayerKind::attention has a second site at `<module_path>.base_layer.out_proj`.
  std::vector<ModuleInfo> lora;
  std::vector<ParameterTarget> parameters;   ///< in model order
  std::vector<std::string> dead_parameters;  ///< target_parameters that matched nothing
  std::vector<ModuleInfo> saved;             ///< outermost modules replaced by full copies
  std::vector<std::string> dead_targets;     ///< list entries that select none of `lora`
  std::vector<std::string> dead_saved;       ///< modules_to_save entries that matched nothing
  std::vector<std::string> dead_patterns;    ///< rank/alpha pattern keys that matched no target
};

/// PEFT's default target_modules for a transformers model_type (llama: q_proj, v_proj); empty when
/// PEFT has none, or has a regular expression (see default_selector).
std::vector<std::string> default_targets(const std::string& model_type);

/// The same as a selector: gemma4's default is one regular expression. monostate when PEFT has
/// none.
ModuleSelector default_selector(const std::string& model_type);

/// Adds the heads that PEFT trains in full for a task to modules_to_save (SEQ_CLS and TOKEN_CLS:
/// classifier, score; QUESTION_ANS: qa_outputs), once. To be called when an adapter is made; a
/// configuration that PEFT saved already lists them.
void add_task_heads(AdapterConfig& config);

/// The modules after layer_replication, which PEFT applies before it matches anything: the layers
/// of [start, end) ranges one after the other under new indices. The same list without the option.
/// Throws Error(incompatible) when the model has no list of layers where PEFT looks for one
/// (`layers`, `encoder.layer` or `h`, behind any `model.` and `bert.`) or not the layers named.
ModuleList replicate_layers(const AdapterConfig& config, const ModuleList& modules);

/// Matches configuration against the modules of a model, replicated where layer_replication says
/// so. `is_transformers` selects the treatment of "all-linear" (the output head is left out there,
/// and taken in other models).
///
/// Rules: an exclusion wins; so does modules_to_save, whose entries are regular expressions there,
/// reach the children of a saved module and need a dot boundary. For replacing modules by full
/// copies the same entries are plain endings without a boundary (`head` also saves `lm_head`). A
/// list entry is a whole path, which ignores the layer filter, or an ending behind a dot. An entry
/// of target_parameters is the full name of a parameter or an ending behind a dot; `modules` list
/// parameters behind their module, in the order of its class, as LayerKind::parameter under their
/// full names (weight and bias follow from the module itself). Without target_modules only
/// parameters are targeted.
///
/// Throws Error(incompatible) when nothing matches, listing the leaf module names that exist, when
/// a selected module cannot take LoRA layers or cannot be saved, and for parameters that PEFT
/// refuses (of the model itself, of a module that target_modules selects too, inside a module with
/// targeted parameters of its own, neither 2-D nor 3-D);
/// Error(usage) when there is neither target_modules nor target_parameters, and for a regular
/// expression that does not compile.
ResolvedTargets resolve_targets(const AdapterConfig& config, const ModuleList& modules,
                                bool is_transformers);

/// Brings target_modules into the form PEFT stores: "all-linear" (any case) becomes the full names
/// it stands for, and a list of 20 or more names becomes the smallest set of endings that selects
/// the same modules. The latter can change what layers_to_transform filters; PEFT resolves the
/// shortened list, and so does resolve_targets.
void expand_all_linear(AdapterConfig& config, const ModuleList& modules, bool is_transformers);

}  // namespace lora
