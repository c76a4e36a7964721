// Several adapters on one base at once: whether they can be, and with which weight each.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Whether the adapter brings the whole weight that it also adapts: PEFT saves the embeddings of
/// the base beside their factors (save_embedding_layers).
bool is_base_copy(const Adapter& adapter, const std::string& base_name);

/// Takes such copies out of the replacements where they hold the values of the base.
void drop_base_copies(Adapter& adapter, const Checkpoint& base);

/// Every reason why these two cannot be active together, each a sentence without its subject
/// ("replace with different values: head"): two values for one base parameter (modules_to_save,
/// biases), two bias modes (PEFT trains biases for one adapter of a model), overlapping token rows,
/// a module that one replaces and the other adapts (unless both brought the same copy of it), sites
/// that cannot be the same weight by their shapes, other target_parameters (PEFT wants one set),
/// KaSA beside an adapter without it, an initialisation that rewrites the base beside any other
/// adapter. Empty when there is none.
std::vector<std::string> conflicts_between(const Adapter& a, const Adapter& b);

/// The same of every pair, one line each, with both adapters as its subject.
std::vector<std::string> adapter_conflicts(const std::vector<const Adapter*>& adapters);

/// Throws Error(incompatible) that lists the conflicts.
void require_no_conflict(const std::vector<const Adapter*>& adapters);

/// The base that an adapter says it is for: base_model_name_or_path, and the root of the base that
/// its manifest records.
struct StatedBase {
  std::optional<std::string> name;
  std::optional<Digest> root;
};
StatedBase stated_base(const Adapter& adapter, const std::optional<Manifest>& manifest);

/// Whether the two are said to be different: by their roots when both are known, else by their
/// names when both are known. One base under two names counts as two where no root proves it.
bool is_other_base(const StatedBase& a, const StatedBase& b);

struct BaseGroup {
  StatedBase base;                   ///< what is known about it from any of the members
  std::vector<std::size_t> members;  ///< positions in the list that was grouped
};

/// Adapters by the base they are for, in the order of the list. Those that say nothing about their
/// base are in no group.
std::vector<BaseGroup> group_by_base(const std::vector<StatedBase>& adapters);

struct WeightedAdapter {
  Adapter adapter;  ///< as opened: its weight is not in its scaling
  double weight = 1;
};

/// Multiplies the scaling of every LoRA module by `weight`, as PEFT's scale_layer does. What an
/// adapter replaces whole (modules_to_save, biases, token rows) has no weight and stays.
void apply_weight(Adapter& adapter, double weight);

}  // namespace lora
