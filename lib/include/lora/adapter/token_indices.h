// Which rows of which tables adapters hold as trained tokens.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"

namespace lora {

/// Row indices of all the adapters' trained tokens by the module path of their table.
std::map<std::string, std::set<std::int64_t>> token_indices_of(
    const std::vector<const Adapter*>& adapters);

}  // namespace lora
