#include "lora/ops/adapter_set.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/update.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "ops/replay/plan.h"
#include "ops/rules/rule.h"
#include "ops/set_claims.h"

namespace lora {
namespace {

std::string_view bias_name(BiasMode mode) { return mode == BiasMode::all ? "all" : "lora_only"; }

// One pair of adapters.
class Pair {
 public:
  Pair(const Adapter& a, const Adapter& b) : a_(a), b_(b) {}

  std::vector<std::string> compare() {
    compare_replacements();
    compare_shapes();
    if (a_.config.bias != BiasMode::none && b_.config.bias != BiasMode::none)
      add("train biases (bias " + std::string(bias_name(a_.config.bias)) + " and bias " +
          std::string(bias_name(b_.config.bias)) + "); a model can have those of one adapter");
    compare_tokens();
    find_replaced(a_, b_);
    find_replaced(b_, a_);
    const auto parameters = target_parameters_of(a_.config),
               others = target_parameters_of(b_.config);
    if (!parameters.empty() && !others.empty() && parameters != others)
      add("target other parameters (target_parameters); those of one model must be the same");
    if (has_kasa(a_.config) != has_kasa(b_.config))
      add("disagree about the base: " + name(has_kasa(a_.config) ? a_ : b_) +
          " uses KaSA, which truncates it, the other does not");
    for (const Adapter* adapter : {&a_, &b_})
      if (const std::string init = base_changing_init(adapter->config); !init.empty())
        add("disagree about the base: " + name(*adapter) + " was initialised with " + init +
            ", which rewrites it");
    return std::move(conflicts_);
  }

 private:
  static std::string name(const Adapter& adapter) { return adapter.path.string(); }

  static std::string text_of(const MatrixShape& shape) {
    return shape_to_string(std::vector<std::int64_t>{shape.rows, shape.columns});
  }

  void add(std::string what) { conflicts_.push_back(std::move(what)); }

  // Both lists are sorted by path.
  void compare_shapes() {
    std::vector<std::string> sites;
    auto other = b_.modules.begin();
    for (const LoraModule& module : a_.modules) {
      while (other != b_.modules.end() && other->module_path < module.module_path) ++other;
      if (other == b_.modules.end()) break;
      if (other->module_path != module.module_path || !has_weight_shape(module) ||
          !has_weight_shape(*other))
        continue;
      const MatrixShape shape = update_shape(module), found = update_shape(*other);
      if (shape.rows != found.rows || shape.columns != found.columns)
        sites.push_back(module.module_path + " " + text_of(shape) + " and " + text_of(found));
    }
    if (!sites.empty()) add("adapt weights of different shapes: " + rules::join_some(sites));
  }

  void compare_replacements() {
    std::set<std::string> modules;
    for (const auto& [base_name, tensor] : a_.replacements) {
      const auto other = b_.replacements.find(base_name);
      if (other != b_.replacements.end() && !has_equal_bytes(tensor, other->second))
        modules.insert(owner_of_parameter(base_name));
    }
    if (!modules.empty())
      add("replace with different values: " + rules::join_some({modules.begin(), modules.end()}));
  }

  void compare_tokens() {
    for (const TokenRows& rows : a_.tokens)
      for (const TokenRows& other : b_.tokens) {
        if (rows.module_path != other.module_path) continue;
        const std::set<std::int64_t> known(rows.indices.begin(), rows.indices.end());
        std::vector<std::string> shared;
        for (const std::int64_t index : other.indices)
          if (known.contains(index)) shared.push_back(std::to_string(index));
        if (!shared.empty())
          add("both bring rows of " + rows.module_path + ": " + rules::join_some(shared));
      }
  }

  // Both adapt the weight and brought the same copy of it along.
  static bool is_shared_copy(const std::string& base_name, const Adapter& a, const Adapter& b) {
    const auto other = b.replacements.find(base_name);
    return is_base_copy(a, base_name) && other != b.replacements.end() &&
           has_equal_bytes(a.replacements.at(base_name), other->second);
  }

  // Modules that `replacing` brings whole and `adapting` changes.
  void find_replaced(const Adapter& replacing, const Adapter& adapting) {
    std::set<std::string> modules;
    for (const auto& [base_name, tensor] : replacing.replacements) {
      if (base_name.ends_with(".bias")) continue;
      const std::string path = owner_of_parameter(base_name);
      const bool has_rows =
          std::any_of(adapting.tokens.begin(), adapting.tokens.end(),
                      [&](const TokenRows& rows) { return rows.module_path == path; });
      if ((adapting.find(path) != nullptr && !is_shared_copy(base_name, replacing, adapting)) ||
          has_rows)
        modules.insert(path);
    }
    if (!modules.empty())
      add("touch the same module: " + name(replacing) + " replaces and " + name(adapting) +
          " adapts " + rules::join_some({modules.begin(), modules.end()}));
  }

  const Adapter& a_;
  const Adapter& b_;
  std::vector<std::string> conflicts_;
};

}  // namespace

bool is_base_copy(const Adapter& adapter, const std::string& base_name) {
  return adapter.replacements.contains(base_name) &&
         std::any_of(adapter.modules.begin(), adapter.modules.end(),
                     [&](const LoraModule& module) { return module.base_name == base_name; });
}

void drop_base_copies(Adapter& adapter, const Checkpoint& base) {
  std::erase_if(adapter.replacements, [&](const auto& entry) {
    const auto& [name, copy] = entry;
    const Tensor* own = base.find(replay::stored_name(base, name));
    return own != nullptr && own->shape == copy.shape && is_float(own->dtype) &&
           is_float(copy.dtype) && is_base_copy(adapter, name) &&
           has_equal_values(copy, *own, 0, static_cast<std::size_t>(copy.numel()));
  });
}

std::vector<std::string> conflicts_between(const Adapter& a, const Adapter& b) {
  return Pair(a, b).compare();
}

std::vector<std::string> adapter_conflicts(const std::vector<const Adapter*>& adapters) {
  std::vector<std::string> conflicts;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    for (std::size_t j = i + 1; j < adapters.size(); ++j)
      for (const std::string& what : conflicts_between(*adapters[i], *adapters[j]))
        conflicts.push_back(adapters[i]->path.string() + " and " + adapters[j]->path.string() +
                            " " + what);
  return conflicts;
}

void require_no_conflict(const std::vector<const Adapter*>& adapters) {
  const std::vector<std::string> conflicts = adapter_conflicts(adapters);
  if (conflicts.empty()) return;
  std::string listed;
  for (const std::string& conflict : conflicts) listed += (listed.empty() ? "" : "; ") + conflict;
  throw Error(ErrorKind::incompatible, "these adapters cannot be active together: " + listed)
      .with_hint("load one of them, or merge one into the base first");
}

StatedBase stated_base(const Adapter& adapter, const std::optional<Manifest>& manifest) {
  return {adapter.config.base_model_name_or_path,
          manifest ? manifest->base_root : std::optional<Digest>()};
}

bool is_other_base(const StatedBase& a, const StatedBase& b) {
  if (a.root && b.root) return *a.root != *b.root;
  return a.name && b.name && *a.name != *b.name;
}

std::vector<BaseGroup> group_by_base(const std::vector<StatedBase>& adapters) {
  std::vector<BaseGroup> groups;
  const auto belongs = [](const BaseGroup& group, const StatedBase& base) {
    return ((group.base.root && base.root) || (group.base.name && base.name)) &&
           !is_other_base(group.base, base);
  };
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const StatedBase& base = adapters[i];
    if (!base.name && !base.root) continue;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const BaseGroup& known) { return belongs(known, base); });
    if (group == groups.end()) group = groups.insert(groups.end(), BaseGroup{base, {}});
    if (!group->base.root) group->base.root = base.root;
    if (!group->base.name) group->base.name = base.name;
    group->members.push_back(i);
  }
  return groups;
}

void apply_weight(Adapter& adapter, double weight) {
  for (LoraModule& module : adapter.modules) module.scaling *= weight;
}

}  // namespace lora
