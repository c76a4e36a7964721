// diff: how exactly do two adapters, or two checkpoints, differ?
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/sinks.h"
#include "lora/ops/statistics.h"

namespace lora {

struct Checkpoint;
class Engine;

/// One field of the two configurations; a missing side is empty, values are compact JSON.
struct FieldDifference {
  std::string field;
  std::string a, b;
};

struct ModuleDifference {
  std::string module_path;
  std::int64_t rank_a = 0, rank_b = 0;
  double scaling_a = 0, scaling_b = 0;
  UpdateDistance distance;
  bool has_equal_bytes = false;  ///< factors, scaling, bias and magnitude are the same
};

/// Outputs on the same input, in f32.
struct OutputDifference {
  double largest = 0;           ///< max |a - b|
  double largest_effect = 0;    ///< max |a - base|
  double argmax_agreement = 1;  ///< token models: share of positions with the same best token
};

struct AdapterDiff {
  std::vector<FieldDifference> fields;
  std::vector<std::string> only_in_a, only_in_b;  ///< module paths and replaced parameters
  std::vector<ModuleDifference> modules;          ///< in both
  std::vector<std::string> changed_replacements;  ///< base_names whose bytes differ
  /// Over all common modules: sqrt of summed squares of differences and of norms of a.
  double total_difference = 0, total_norm_a = 0;
  std::optional<OutputDifference> outputs;
  bool is_equal() const;  ///< nothing that changes an output or a file's meaning differs
};

struct AdapterDiffOptions {
  int threads = 0;
  const Checkpoint* base = nullptr;  ///< with `engine`: compare outputs on a fixed input
  std::function<Engine&()> engine;
};

/// Modules whose shapes differ are Error(incompatible), all of them listed.
AdapterDiff diff(const Adapter& a, const Adapter& b, const AdapterDiffOptions& options);

struct TensorDifference {
  std::string name;
  std::string what;  ///< "values", "shape", "dtype"
  std::string a, b;  ///< dtype and shape of each side
  double max_absolute = 0;
  double relative = 0;  ///< ||a - b||_F / ||a||_F
  std::int64_t changed_elements = 0, elements = 0;
};

struct CheckpointDiff {
  std::vector<std::string> only_in_a, only_in_b;  ///< tensor names
  std::vector<TensorDifference> changed;          ///< most changed (relative) first
  std::int64_t equal = 0;                         ///< tensors with equal dtype, shape and bytes
  bool is_equal() const { return only_in_a.empty() && only_in_b.empty() && changed.empty(); }
};

/// Streams both checkpoints tensor by tensor; aliases count under their own names too, so that a
/// tied and an untied head with equal values are equal.
CheckpointDiff diff(const Checkpoint& a, const Checkpoint& b, int threads, const Sinks& sinks);

}  // namespace lora
