// Modules that are missing where all their siblings in a stack of equal layers have factors.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"

namespace lora {

/// Paths, sorted, that the configuration selects, that have no tensor, and whose counterparts in
/// the other layers 0..N-1 have: a single module beside others of its parent, or one run of whole
/// layers in the middle. Only few of many count. Layers that hold anything the others do not are
/// of another kind and ask for nothing.
std::vector<std::string> sibling_gaps(const Adapter& adapter);

}  // namespace lora
