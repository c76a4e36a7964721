#include "ops/merge/copies.h"

#include <algorithm>

#include "ops/replay/plan.h"
#include "ops/replay/target.h"

namespace lora::merging {
namespace {

// The updates of the named weights, nothing else.
Adapter updates_of(const std::set<std::string>& names, const WeightedAdapter& given,
                   const Checkpoint& base) {
  Adapter adapter = replay::settled(given.adapter, base);
  apply_weight(adapter, given.weight);
  adapter.replacements.clear();
  adapter.tokens.clear();
  std::erase_if(adapter.modules, [&](const LoraModule& module) {
    return !names.contains(replay::stored_name(base, module.base_name));
  });
  return adapter;
}

bool is_contradicted(const replay::Outcome& outcome) {
  return outcome.proof == MergeProof::differs;
}

}  // namespace

std::set<std::string> contradicted_copies(const std::set<std::string>& names,
                                          const std::vector<WeightedAdapter>& given,
                                          const Checkpoint& base, const Checkpoint& merged,
                                          int threads, const Sinks& sinks) {
  if (names.empty()) return {};
  std::vector<Adapter> adapters;
  for (const WeightedAdapter& one : given) adapters.push_back(updates_of(names, one, base));
  std::vector<const Adapter*> active;
  for (const Adapter& adapter : adapters) active.push_back(&adapter);
  const replay::Plan plan = replay::make_plan(active, base, merged);
  std::set<std::string> contradicted;
  for (std::size_t i = 0; i < plan.targets.size(); ++i) {
    const std::string name = replay::stored_name(base, plan.targets[i].base_name);
    if (!names.contains(name)) continue;
    // A matrix that is embedding and head may hold the update of one of them.
    std::vector<replay::Target> ways{plan.targets[i]};
    for (const replay::SharedUpdate& shared : plan.shared)
      if (shared.target == i)
        ways.insert(ways.end(), shared.alternatives.begin(), shared.alternatives.end());
    const auto outcomes = replay::replay(ways, threads, sinks);
    if (std::all_of(outcomes.begin(), outcomes.end(), is_contradicted)) contradicted.insert(name);
  }
  return contradicted;
}

}  // namespace lora::merging
