// Several adapters on one base at once: whether they can be, and with which weight each.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"

namespace lora {

/// Every reason why two of these adapters cannot be active together, one line each, naming both
/// adapters and what they disagree about: two values for one base parameter (modules_to_save,
/// biases), two bias modes (PEFT trains biases for one adapter of a model), overlapping token rows,
/// a module that one replaces and the other adapts, KaSA beside an adapter without it, an
/// initialisation that rewrites the base beside any other adapter. Empty when there is none.
std::vector<std::string> adapter_conflicts(const std::vector<const Adapter*>& adapters);

/// Throws Error(incompatible) that lists the conflicts.
void require_no_conflict(const std::vector<const Adapter*>& adapters);

/// Multiplies the scaling of every LoRA module by `weight`, as PEFT's scale_layer does. What an
/// adapter replaces whole (modules_to_save, biases, token rows) has no weight and stays.
void apply_weight(Adapter& adapter, double weight);

}  // namespace lora
