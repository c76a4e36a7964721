// What differs between two checkpoints, and as what an adapter can hold it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/extract.h"

namespace lora::extraction {

/// A matrix whose difference gets factors.
struct Site {
  std::string module_path, base_name;
  LayerKind kind = LayerKind::linear;
  const Tensor* base = nullptr;
  const Tensor* tuned = nullptr;
  std::size_t order = 0;  ///< in the model
  bool is_in_out() const { return kind != LayerKind::linear; }
};

struct Tokens {
  std::string module_path;
  std::vector<std::int64_t> rows;  ///< ascending
};

struct Survey {
  std::vector<Site> sites;  ///< in the order of the model
  std::vector<Tokens> tokens;
  std::vector<std::string> saved;   ///< paths of modules to carry whole, sorted
  std::vector<std::string> biased;  ///< paths of adapted modules whose bias changed
  std::vector<std::string> left_out;
  std::vector<std::string> unchanged;  ///< tensors of equal values
};

/// Throws as extract does for names, shapes and dtypes that differ, for changed parameters without
/// a module, and when nothing changed.
Survey survey(const ExtractOptions& options, const ModuleList& modules, const Sinks& sinks);

/// Every parameter of a module in the tuned checkpoint by base_name, second names included.
std::map<std::string, const Tensor*> parameters_of(const Checkpoint& tuned,
                                                   const std::string& module_path);

}  // namespace lora::extraction
