// Names that mean the bytes of another name.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// The name of `names` (not empty) under which a shared tensor is kept: the tied-to name of a known
/// pair (input embedding before output head), else the bytewise smallest.
std::string canonical_name(const std::vector<std::string>& names);

/// Whether `head` is one of the names that a config.json can tie to `source`.
bool is_known_tie(const std::string& head, const std::string& source);

/// Applies what checkpoint.config says about tied weights: see the head of checkpoint.h. May append
/// to notes.
void apply_ties(Checkpoint& checkpoint);

/// Adds aliases recorded earlier (base.lock.json) whose canonical name is a tensor and whose own
/// name is not.
void restore_aliases(Checkpoint& checkpoint, const std::map<std::string, std::string>& recorded);

}  // namespace lora
