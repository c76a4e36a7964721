// diff: how exactly do two adapters, two checkpoints, or an adapter and a tuned checkpoint, differ?
//
// Results hold what a text, JSON or HTML report needs: figures by module, by kind of module (leaf
// name) and by depth (layer), singular values, histograms and heat maps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/sinks.h"
#include "lora/ops/statistics.h"

namespace lora {

struct Checkpoint;

/// Where a module stands in its model, from its path alone.
struct ModulePlace {
  std::string leaf;                   ///< last component: "q_proj"
  std::optional<std::int64_t> layer;  ///< first component that is a number: layers.17 -> 17
};
ModulePlace place_of(const std::string& module_path);

/// One field of the two configurations; a missing side is empty, values are compact JSON.
struct FieldDifference {
  std::string field;
  std::string a, b;
  /// What the field changes in the computation ("scaling of the update"); empty for fields that
  /// only describe or that only training reads.
  std::string effect;
};

struct ModuleDifference {
  std::string module_path;
  ModulePlace place;
  std::int64_t rank_a = 0, rank_b = 0;
  double scaling_a = 0, scaling_b = 0;
  UpdateDistance distance;
  bool has_equal_bytes = false;  ///< factors, scaling, bias and magnitude are the same
  /// No NaN and no infinite value in what the module is made of; the distance is NaN otherwise.
  bool is_finite_a = true, is_finite_b = true;
  bool is_direction = false;  ///< DoRA on a side: the distance is that of the directions
};

/// Sums over several modules. Norms are Frobenius norms of all updates taken together.
struct GroupDifference {
  std::string name;  ///< leaf name, or layer index in decimal ("" for modules outside layers)
  std::int64_t modules = 0, changed = 0;
  double norm_a = 0, norm_b = 0, difference = 0;
  double relative = 0;       ///< difference / norm_a
  double cosine = 0;         ///< of all updates as one vector
  double largest_angle = 0;  ///< largest principal angle of output spaces of any module
};

/// A value for each layer (row) and leaf name (column); NaN where the model has no such module.
struct HeatMap {
  std::vector<std::string> rows;     ///< layer indices in ascending order, then "" if needed
  std::vector<std::string> columns;  ///< leaf names in order of first appearance
  std::vector<double> values;        ///< rows.size() * columns.size(), row-major
};

struct AdapterDiff {
  std::vector<FieldDifference> fields;
  /// Module paths, replaced parameters, and further adapters of the file ("adapter second").
  std::vector<std::string> only_in_a, only_in_b;
  std::vector<ModuleDifference> modules;  ///< in both, in the order of a
  /// base_names, token rows ("tokens 5, 17 of model.embed_tokens"), and further adapters in both
  /// files, whose bytes differ
  std::vector<std::string> changed_replacements;
  /// Over all common modules: sqrt of summed squares of differences and of norms.
  double total_difference = 0, total_norm_a = 0, total_norm_b = 0;
  double total_cosine = 0;                ///< of all common updates as one vector
  std::vector<GroupDifference> by_leaf;   ///< in order of first appearance
  std::vector<GroupDifference> by_layer;  ///< ascending
  HeatMap relative_map;                   ///< relative difference by layer and leaf
  HeatMap cosine_map;
  bool is_equal() const;  ///< nothing that changes an output or a file's meaning differs
};

struct AdapterDiffOptions {
  int threads = 0;
  Sinks sinks;
};

/// Modules whose shapes differ are Error(incompatible), all of them listed.
AdapterDiff diff(const Adapter& a, const Adapter& b, const AdapterDiffOptions& options);

/// How many representable values lie between a[i] and b[i], counted in the coarser of both dtypes
/// (the finer side is rounded to it first). Buckets: counts[0] equal, counts[k] at least 2^(k-1)
/// and less than 2^k steps. +0 and -0 are equal.
struct UlpHistogram {
  std::string dtype;  ///< "F32", "BF16", ...
  std::vector<std::int64_t> counts;
  std::int64_t not_comparable = 0;  ///< NaN on one side
};

/// What the difference of two matrices is made of. `rank` directions were found and carry all but
/// `residual` of the difference; `residual` is ||D - Q Q^T D||_F for the Q found, computed from D
/// itself, so it bounds the distance to the nearest matrix of that rank without any probability.
struct DifferenceRank {
  std::int64_t rank = 0;
  /// True when `rank` is only a lower bound, proven by a submatrix of that rank; the difference was
  /// not examined further.
  bool is_lower_bound = false;
  double residual = 0;
  double rounding = 0;  ///< expected norm of the rounding of b to its dtype: noise of full rank
  bool is_low_rank = false;  ///< rank explains everything but rounding: a merged LoRA looks so
  std::vector<double> singular_values;  ///< of Q^T D, descending
};

struct TensorDifference {
  std::string name;
  std::string what;  ///< "values", "shape", "dtype"
  std::string a, b;  ///< dtype and shape of each side
  double max_absolute = 0;
  double difference = 0;          ///< ||a - b||_F over pairs of finite values
  double norm_a = 0, norm_b = 0;  ///< ||a||_F, ||b||_F over finite values
  double relative = 0;            ///< difference / norm_a
  std::int64_t changed_elements = 0, elements = 0;
  std::int64_t non_finite_a = 0, non_finite_b = 0;
  UlpHistogram ulps;                   ///< float tensors of equal shape
  std::optional<DifferenceRank> rank;  ///< matrices, when asked for or small
};

/// Tensors of one block: the path up to and including the first number ("model.layers.3"), else the
/// first component. Norms are those of its changed tensors.
struct BlockDifference {
  std::string name;
  std::int64_t tensors = 0, changed = 0;
  std::int64_t elements = 0, changed_elements = 0;
  double difference = 0, norm_a = 0, relative = 0, max_absolute = 0;
};

struct CheckpointDiff {
  std::vector<std::string> only_in_a, only_in_b;  ///< tensor names
  std::vector<TensorDifference> changed;          ///< most changed (relative) first
  std::int64_t equal = 0;                         ///< tensors with equal dtype, shape and bytes
  std::vector<BlockDifference> blocks;            ///< of common tensors, in natural order
  std::vector<UlpHistogram> ulps;                 ///< of changed tensors, one a dtype
  HeatMap relative_map;                           ///< of changed and equal matrices
  bool is_equal() const { return only_in_a.empty() && only_in_b.empty() && changed.empty(); }
};

struct CheckpointDiffOptions {
  int threads = 0;
  /// Examine the rank of differences with at most this many elements; 0: of none, -1: of all.
  std::int64_t rank_elements = 1 << 20;
  std::int64_t largest_rank = 256;  ///< ranks above are reported as a lower bound
  Sinks sinks;
};

/// Streams both checkpoints; aliases count under their own names too, so that a tied and an untied
/// head with equal values are equal.
CheckpointDiff diff(const Checkpoint& a, const Checkpoint& b, const CheckpointDiffOptions& options);

/// An adapter's update against what tuning did to its module's weight.
struct TunedModule {
  std::string module_path;
  ModulePlace place;
  double update_norm = 0;  ///< ||dW|| of the adapter
  double change_norm = 0;  ///< ||tuned - base||
  double difference = 0;   ///< ||(tuned - base) - dW||
  double relative = 0;     ///< difference / update_norm
  double cosine = 0;
  double best_scale = 0;        ///< c for which c * dW is nearest to tuned - base
  double relative_at_best = 0;  ///< difference / update_norm with that scale
  double rounding = 0;          ///< expected norm of rounding tuned to its dtype
  std::string not_compared;     ///< why this module has no figures, else empty
};

struct TunedDiff {
  std::vector<TunedModule> modules;  ///< in the adapter's order
  /// Tensors that the adapter does not touch and that differ between base and tuned, by name.
  std::vector<std::string> changed_elsewhere;
  std::vector<std::string> only_in_base, only_in_tuned;
  /// Replaced parameters (modules_to_save, biases) and token rows that tuned does not hold as the
  /// adapter does.
  std::vector<std::string> changed_replacements;
  double update_norm = 0, change_norm = 0, difference = 0;  ///< of all compared modules
  double cosine = 0, best_scale = 0;
  HeatMap relative_map;
  /// Tuned is base plus the adapter's update up to rounding, and nothing else.
  bool is_equal() const;
};

/// Compares the adapter's update with tuned - base, module by module, in row blocks. Modules that
/// cannot be compared say so. Throws Error(interrupted).
TunedDiff diff(const Adapter& adapter, const Checkpoint& base, const Checkpoint& tuned,
               const AdapterDiffOptions& options);

}  // namespace lora
