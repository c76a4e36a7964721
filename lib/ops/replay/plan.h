// From an adapter, a base and a merged checkpoint to the tensors that have to be compared.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/module.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/replay/target.h"

namespace lora::replay {

/// Updates of several modules that meet in one matrix, because embedding and head are tied.
struct SharedUpdate {
  std::size_t target = 0;            ///< where all of them are added, as PEFT's merge does
  std::vector<Target> alternatives;  ///< what else the matrix may hold: each module's update alone
  std::vector<std::string> modules;  ///< by alternative
  bool is_one_update = false;  ///< the head's factors are the embedding's (ensure_weight_tying)
  bool has_own_module = true;  ///< the matrix' own name is targeted, not only a name tied to it
};

struct Plan {
  std::vector<Target> targets;        ///< sorted by base_name
  std::vector<std::string> missing;   ///< expected names that the merged checkpoint lacks
  std::vector<std::string> left_out;  ///< of these, buffers and heads that another class drops
  std::vector<std::string> extra;     ///< names nothing explains
  std::vector<SharedUpdate> shared;
};

/// `merged` may be a description of a checkpoint that is still to be written: only its names,
/// aliases, dtypes and shapes are read here. Several adapters are added in the order given.
Plan make_plan(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
               const Checkpoint& merged);

/// The adapter with what only the base can tell: which parameter a site on bare parameters changes,
/// and in which layout.
Adapter settled(const Adapter& adapter, const Checkpoint& base);

/// The name under which a checkpoint stores `base_name`: itself, what it is tied to, or the one
/// name that differs by a leading component ("transformer.h.0..." and "h.0..."). Empty: not there.
std::string stored_name(const Checkpoint& checkpoint, const std::string& base_name);

/// Whether `stored`, a tensor or an alias of the checkpoint, is what an adapter calls `base_name`.
bool is_stored_as(const Checkpoint& checkpoint, const std::string& base_name,
                  const std::string& stored);

/// The additions of one module to the weight of `target`, block by block; sets the shape of the
/// target as a matrix. They cover its rows exactly. `problem` says why PEFT's merge cannot be
/// replayed, if it cannot.
std::vector<Block> blocks_of(const LoraModule& module, LayerKind base_kind, Target& target,
                             std::string& problem);

}  // namespace lora::replay
