#include "ops/replay/plan.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "ops/base_targets.h"

namespace lora::replay {
namespace {

// Buffers that checkpoints in circulation hold and today's classes do not save.
bool is_buffer(const std::string& name) {
  constexpr std::array<std::string_view, 6> kEndings{".attn.bias",      ".attn.masked_bias",
                                                     ".attention.bias", ".attention.masked_bias",
                                                     ".position_ids",   ".rotary_emb.inv_freq"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

std::string bias_name(const std::string& weight_name) {
  constexpr std::string_view kWeight = ".weight";
  if (!weight_name.ends_with(kWeight)) return {};
  return weight_name.substr(0, weight_name.size() - kWeight.size()) + ".bias";
}

std::string architecture_of(const Checkpoint& checkpoint) {
  return checkpoint.config ? checkpoint.config->architecture : std::string();
}

class Planner {
 public:
  Planner(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
          const Checkpoint& merged)
      : adapters_(adapters), base_(base), merged_(merged) {
    for (const ModuleInfo& module : list_modules(base)) kinds_[module.module_path] = module.kind;
  }

  Plan run() {
    for (const auto& [name, tensor] : base_.tensors) target_of(name);
    // A head that the base ties and the merge unties: PEFT leaves the base's matrix there when
    // modules_to_save replaces the embedding alone.
    for (const auto& [alias, canonical] : base_.aliases)
      if (merged_.tensors.contains(alias)) target_of(alias);
    for (const Adapter* adapter : adapters_)
      for (const auto& [name, tensor] : adapter->replacements) replace(name, tensor);
    // PEFT merges in the order of the modules, where the embedding comes before the head tied to
    // it.
    for (const Adapter* adapter : adapters_)
      for (const bool is_tied : {false, true})
        for (const LoraModule& module : adapter->modules)
          if (merged_.aliases.contains(module.base_name) == is_tied) adapt(*adapter, module);
    for (const Adapter* adapter : adapters_)
      for (const TokenRows& tokens : adapter->tokens) replace_rows(tokens);
    explain_shared();
    for (auto& [name, target] : targets_) {
      index_[name] = plan_.targets.size();
      plan_.targets.push_back(std::move(target));
    }
    for (SharedUpdate& shared : plan_.shared)
      shared.target = index_.at(shared.alternatives.front().base_name);
    for (const auto& [name, tensor] : merged_.tensors)
      if (!index_.contains(name)) plan_.extra.push_back(name);
    return std::move(plan_);
  }

 private:
  // The target that holds this parameter in the merged checkpoint; null when it is missing there.
  Target* target_of(const std::string& base_name) {
    const std::string stored = stored_name(merged_, base_name);
    if (stored.empty()) {
      miss(base_name);
      return nullptr;
    }
    const auto found = targets_.find(stored);
    if (found != targets_.end()) return &found->second;
    const std::string source = stored_name(base_, base_name);
    const Tensor* saved = replacement_of(base_name);
    if (source.empty() && saved == nullptr) return nullptr;
    Target target;
    target.base_name = stored;
    target.merged = merged_.tensors.at(stored);
    set_base(target, saved != nullptr ? *saved : base_.tensors.at(source), saved != nullptr);
    return &targets_.emplace(stored, std::move(target)).first->second;
  }

  const Tensor* replacement_of(const std::string& base_name) const {
    for (const Adapter* adapter : adapters_) {
      const auto found = adapter->replacements.find(base_name);
      if (found != adapter->replacements.end()) return &found->second;
    }
    return nullptr;
  }

  static void set_base(Target& target, const Tensor& value, bool is_saved) {
    target.base = value;
    target.is_saved = is_saved;
    target.rows = value.shape.empty() ? 1 : value.shape[0];
    target.columns = target.rows == 0 ? 0 : value.numel() / target.rows;
    target.misshaped.clear();
    if (value.shape != target.merged.shape)
      target.misshaped = "shape " + shape_to_string(target.merged.shape) + ", expected " +
                         shape_to_string(value.shape);
  }

  void miss(const std::string& name) {
    const bool is_other_class =
        architecture_of(base_) != architecture_of(merged_) && replacement_of(name) == nullptr;
    auto& list = is_buffer(name) || is_other_class ? plan_.left_out : plan_.missing;
    if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
  }

  void replace(const std::string& name, const Tensor& value) {
    Target* target = target_of(name);
    if (target != nullptr) set_base(*target, value, true);
  }

  void adapt(const Adapter& adapter, const LoraModule& module) {
    Target* target = target_of(module.base_name);
    if (target == nullptr) {
      if (!stored_name(merged_, module.base_name).empty()) miss(module.base_name);
      return;
    }
    if (!target->misshaped.empty() || !target->not_replayed.empty()) return;
    const auto kind = kinds_.find(module.module_path);
    LayerKind base_kind = kind == kinds_.end() ? LayerKind::other : kind->second;
    // Without a class to ask, the configuration is the only word about a square weight.
    if (!base_.config && base_kind == LayerKind::linear && adapter.config.fan_in_fan_out)
      base_kind = LayerKind::conv1d;
    std::string problem;
    std::vector<Block> blocks = blocks_of(module, base_kind, *target, problem);
    if (changes_base_on_load(adapter.config))
      problem = "init_lora_weights \"" + base_changing_init(adapter.config) +
                "\" rewrites the base before the update is added";
    const Json* replication = adapter.config.other.find("layer_replication");
    if (replication != nullptr && !replication->is_null())
      problem = "layer_replication rebuilds the layers before the update is added";
    if (!problem.empty()) {
      target->not_replayed = problem;
      target->module_path = module.module_path;
      return;
    }
    uses_[target->base_name].push_back({&module, blocks});
    if (is_further(*target, adapter) && (target->magnitude || module.magnitude)) {
      target->not_replayed =
          "DoRA on a weight that another adapter changes too: the norm it was "
          "trained with is that of its own sum";
      return;
    }
    add(*target, module, std::move(blocks));
    if (module.bias) add_bias(adapter, module);
  }

  // Counts the adapters of a target; true when another one is there already.
  bool is_further(Target& target, const Adapter& adapter) {
    const Adapter*& last = last_[target.base_name];
    if (last != &adapter) ++target.adapters;
    last = &adapter;
    return target.adapters > 1;
  }

  static void add(Target& target, const LoraModule& module, std::vector<Block> blocks) {
    if (target.module_path.empty()) target.module_path = module.module_path;
    if (module.magnitude) {
      target.magnitude = module.magnitude;
      target.is_norm_by_column = !blocks.empty() && blocks.front().additions.front().is_transposed;
    }
    if (target.blocks.empty()) {
      target.blocks = std::move(blocks);
      return;
    }
    const auto is_same = [](const Block& x, const Block& y) {
      return x.first_row == y.first_row && x.rows == y.rows;
    };
    if (!std::equal(target.blocks.begin(), target.blocks.end(), blocks.begin(), blocks.end(),
                    is_same)) {
      target.not_replayed = "several stacks of factors meet in one parameter";
      return;
    }
    for (std::size_t i = 0; i < blocks.size(); ++i)
      for (Addition& addition : blocks[i].additions)
        target.blocks[i].additions.push_back(std::move(addition));
  }

  void add_bias(const Adapter& adapter, const LoraModule& module) {
    const std::string name = bias_name(module.base_name);
    Target* target = name.empty() ? nullptr : target_of(name);
    if (target == nullptr) return;
    target->module_path = module.module_path;
    target->columns = target->base.numel();
    target->rows = 1;
    Addition addition;
    addition.a = *module.bias;
    addition.a.shape = {1, module.bias->numel()};
    addition.b = Tensor::from_f32({1, 1}, std::vector<float>{1.0F});
    addition.scaling = module.scaling;
    // PEFT adds the bias in f32 in both merges.
    addition.never_rounds = true;
    is_further(*target, adapter);
    if (target->blocks.empty())
      target->blocks = {{0, 1, {std::move(addition)}}};
    else
      target->blocks.front().additions.push_back(std::move(addition));
  }

  void replace_rows(const TokenRows& tokens) {
    const std::string name = tokens.module_path + ".weight";
    std::set<Target*> holders{target_of(name)};
    // The head a base ties to the embedding, where the merged checkpoint stores it apart.
    for (const auto& [alias, canonical] : base_.aliases)
      if (canonical == stored_name(base_, name)) holders.insert(target_of(alias));
    for (Target* target : holders) {
      if (target == nullptr) continue;
      target->token_rows = tokens.rows;
      for (std::size_t i = 0; i < tokens.indices.size(); ++i)
        target->replaced_rows.emplace_back(tokens.indices[i], static_cast<std::int64_t>(i));
      std::sort(target->replaced_rows.begin(), target->replaced_rows.end());
    }
  }

  void explain_shared() {
    for (const auto& [name, uses] : uses_) {
      const Target& whole = targets_.at(name);
      const bool is_tied = std::any_of(uses.begin(), uses.end(), [&](const Use& use) {
        return stored_name(merged_, use.module->base_name) != use.module->base_name &&
               merged_.aliases.contains(use.module->base_name);
      });
      if (!is_tied || !whole.not_replayed.empty()) continue;
      SharedUpdate shared;
      shared.has_own_module = false;
      for (const Use& use : uses) {
        Target alone = whole;
        alone.blocks.clear();
        add(alone, *use.module, use.blocks);
        shared.has_own_module = shared.has_own_module || use.module->base_name == name;
        shared.is_one_update = shared.is_one_update || !use.module->tied_to.empty();
        shared.modules.push_back(use.module->module_path);
        shared.alternatives.push_back(std::move(alone));
      }
      plan_.shared.push_back(std::move(shared));
    }
  }

  struct Use {
    const LoraModule* module;
    std::vector<Block> blocks;
  };

  const std::vector<const Adapter*>& adapters_;
  const Checkpoint& base_;
  const Checkpoint& merged_;
  std::map<std::string, LayerKind> kinds_;
  std::map<std::string, Target> targets_;
  std::map<std::string, std::size_t> index_;
  std::map<std::string, std::vector<Use>> uses_;
  std::map<std::string, const Adapter*> last_;  // that added to a target
  Plan plan_;
};

}  // namespace

Adapter settled(const Adapter& adapter, const Checkpoint& base) {
  Adapter copy = adapter;
  ModuleList modules = list_modules(base);
  for (const auto& [name, tensor] : base.tensors) {
    if (name.ends_with(".weight") || tensor.shape.size() < 2) continue;
    ModuleInfo parameter;
    parameter.module_path = name;
    parameter.kind = LayerKind::parameter;
    parameter.weight_shape = tensor.shape;
    modules.push_back(std::move(parameter));
  }
  settle_with(copy, base, modules);
  return copy;
}

std::string stored_name(const Checkpoint& checkpoint, const std::string& base_name) {
  const auto alias = checkpoint.aliases.find(base_name);
  const std::string& name = alias == checkpoint.aliases.end() ? base_name : alias->second;
  if (checkpoint.tensors.contains(name)) return name;
  const std::size_t dot = name.find('.');
  if (dot != std::string::npos && checkpoint.tensors.contains(name.substr(dot + 1)))
    return name.substr(dot + 1);
  std::string found;
  for (const auto& [candidate, tensor] : checkpoint.tensors) {
    if (!candidate.ends_with("." + name) ||
        candidate.find('.') != candidate.size() - name.size() - 1)
      continue;
    if (!found.empty()) return {};
    found = candidate;
  }
  return found;
}

bool is_stored_as(const Checkpoint& checkpoint, const std::string& base_name,
                  const std::string& stored) {
  if (base_name == stored) return true;
  if (!base_name.ends_with("." + stored) && !stored.ends_with("." + base_name)) return false;
  return !checkpoint.aliases.contains(base_name) && stored_name(checkpoint, base_name) == stored;
}

Plan make_plan(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
               const Checkpoint& merged) {
  return Planner(adapters, base, merged).run();
}

}  // namespace lora::replay
