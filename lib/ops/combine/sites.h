// The sites that a combination has, and what each adapter does at each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/update.h"

namespace lora::combining {

/// What one adapter adds at a site. Scalings are the module's, without the `times` that whoever
/// applies the result multiplies in again.
struct Part {
  std::size_t adapter = 0;  ///< position in the list
  const LoraModule* module = nullptr;
  std::vector<UpdateFactor> terms;  ///< one an expert
};

struct Site {
  std::string module_path;
  std::vector<Part> parts;  ///< by position; never empty
  const LoraModule& shape_of() const { return *parts.front().module; }
  std::int64_t experts() const { return shape_of().experts; }
};

/// All sites of all adapters, sorted by path. Throws Error(unsupported) naming every site and
/// adapter whose update is no sum of products that may be added to another, Error(incompatible)
/// naming the sites where kinds or shapes differ. The adapters must outlive the result.
std::vector<Site> sites_of(const std::vector<const Adapter*>& adapters);

}  // namespace lora::combining
