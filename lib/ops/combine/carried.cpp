#include "ops/combine/carried.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/adapter/manifest.h"
#include "lora/adapter/strength.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/ops/adapter_set.h"
#include "ops/rules/rule.h"

namespace lora::combining {
namespace {

constexpr std::size_t kShown = 5;
constexpr const char* kTokenIndices = "trainable_token_indices";

using Names = std::vector<std::string>;

class Carrying {
 public:
  Carrying(const std::vector<const Adapter*>& adapters, const std::vector<Site>& sites,
           std::optional<std::size_t> saved_from)
      : adapters_(adapters), sites_(sites), saved_from_(saved_from) {
    result_.config = adapters.front()->config;
  }

  Carried run() {
    require_settings();
    for (const Adapter* adapter : adapters_) remaining_.push_back(*adapter);
    settle_replacements();
    settle_biases();
    settle_tokens();
    require_no_other_conflict();
    collect();
    choose_targets();
    return std::move(result_);
  }

 private:
  std::string name(std::size_t i) const { return adapters_[i]->path.string(); }

  template <typename Get>
  bool is_same(Get&& get) const {
    return std::all_of(adapters_.begin(), adapters_.end(), [&](const Adapter* adapter) {
      return get(adapter->config) == get(adapters_.front()->config);
    });
  }

  bool is_same_member(const char* field) const {
    return is_same([&](const AdapterConfig& config) {
      const Json* value = config.other.find(field);
      return value == nullptr ? Json() : *value;
    });
  }

  // Settings of the whole adapter that change what its keys and factors mean.
  void require_settings() {
    Names different;
    for (const char* field : {"layer_replication", "ensure_weight_tying", "megatron_config"})
      if (!is_same_member(field)) different.emplace_back(field);
    if (!different.empty())
      throw Error(
          ErrorKind::incompatible,
          "cannot combine adapters whose configurations differ in " + rules::join_some(different));
    if (!is_same([](const AdapterConfig& config) { return config.task_type; }))
      result_.notes.push_back(
          "the adapters are for different tasks; the result takes the task of " + name(0));
    // Of training only: their tensors are not part of the update.
    for (const char* field : {"monteclora_config", "velora_config"})
      if (result_.config.other.find(field) != nullptr) result_.config.other[field] = Json();
  }

  // Values that only one adapter can give are taken from all but the chosen one; the rest is a
  // conflict.
  void settle_replacements() {
    std::map<std::string, std::vector<std::size_t>> owners;
    for (std::size_t i = 0; i < remaining_.size(); ++i)
      for (const auto& [base_name, tensor] : remaining_[i].replacements)
        owners[base_name].push_back(i);
    Names conflicts;
    for (const auto& [base_name, who] : owners) {
      const Tensor& first = remaining_[who.front()].replacements.at(base_name);
      const bool is_one = std::all_of(who.begin(), who.end(), [&](std::size_t i) {
        return has_equal_bytes(first, remaining_[i].replacements.at(base_name));
      });
      if (is_one) continue;
      if (!is_chosen_among(who)) {
        std::string by;
        for (const std::size_t i : who) by += (by.empty() ? "" : ", ") + name(i);
        conflicts.push_back(base_name + " (by " + by + ")");
        continue;
      }
      for (const std::size_t i : who)
        if (i != *saved_from_) remaining_[i].replacements.erase(base_name);
    }
    if (conflicts.empty()) return;
    throw Error(ErrorKind::incompatible,
                "cannot combine adapters that replace the same with different values: " +
                    rules::join_some(conflicts, kShown))
        .with_hint("--saved-from N takes those of the Nth adapter; a sum of them has no meaning");
  }

  bool is_chosen_among(const std::vector<std::size_t>& who) const {
    return saved_from_ && std::find(who.begin(), who.end(), *saved_from_) != who.end();
  }

  // A model has the trained biases of one adapter.
  void settle_biases() {
    std::vector<std::size_t> who;
    for (std::size_t i = 0; i < remaining_.size(); ++i)
      if (remaining_[i].config.bias != BiasMode::none) who.push_back(i);
    if (who.empty()) return;
    const std::size_t chosen = is_chosen_among(who) ? *saved_from_ : who.front();
    result_.config.bias = adapters_[chosen]->config.bias;
    if (!is_chosen_among(who)) return;
    for (const std::size_t i : who)
      if (i != chosen) remaining_[i].config.bias = BiasMode::none;
  }

  void settle_tokens() {
    std::vector<std::size_t> who;
    for (std::size_t i = 0; i < remaining_.size(); ++i)
      if (!remaining_[i].tokens.empty()) who.push_back(i);
    if (who.empty()) return;
    std::size_t chosen = who.front();
    if (is_chosen_among(who)) {
      chosen = *saved_from_;
    } else if (who.size() > 1) {
      Names by;
      for (const std::size_t i : who) by.push_back(name(i));
      throw Error(ErrorKind::incompatible,
                  "cannot combine adapters that each bring token rows: " + rules::join_some(by))
          .with_hint("--saved-from N takes those of the Nth adapter");
    }
    for (const std::size_t i : who)
      if (i != chosen) remaining_[i].tokens.clear();
    tokens_from_ = chosen;
    if (const Json* indices = adapters_[chosen]->config.other.find(kTokenIndices))
      result_.config.other[kTokenIndices] = *indices;
  }

  void require_no_other_conflict() const {
    std::vector<const Adapter*> remaining;
    for (const Adapter& adapter : remaining_) remaining.push_back(&adapter);
    const Names conflicts = adapter_conflicts(remaining);
    if (conflicts.empty()) return;
    throw Error(ErrorKind::incompatible,
                "these adapters cannot become one: " + rules::join_some(conflicts, kShown))
        .with_hint(
            "merge one into the base first, or take what only one can give with "
            "--saved-from N");
  }

  void collect() {
    std::set<std::string> adapted, names, saved;
    for (const Site& site : sites_) adapted.insert(site.module_path);
    for (std::size_t i = 0; i < remaining_.size(); ++i) {
      for (const auto& [peft_key, tensor] : remaining_[i].tensors) {
        ParsedKey key = parse_key(peft_key);
        if (key.role == KeyRole::trainable_tokens && tokens_from_ == i)
          result_.tensors.emplace(peft_key, tensor);
        if (key.role != KeyRole::saved && key.role != KeyRole::base_layer) continue;
        const std::string base_name = to_base_name(key);
        if (!remaining_[i].replacements.contains(base_name)) continue;
        // A bias beside a layer that only another adapter adapts stands inside that layer now.
        if (key.role == KeyRole::saved && adapted.contains(key.module_path))
          key.role = KeyRole::base_layer;
        if (names.insert(base_name).second) result_.tensors.emplace(to_peft_key(key), tensor);
      }
      for (const std::string& entry : adapters_[i]->config.modules_to_save) saved.insert(entry);
    }
    result_.base_names.assign(names.begin(), names.end());
    Names& list = result_.config.modules_to_save;
    for (const std::string& entry : saved)
      if (std::find(list.begin(), list.end(), entry) == list.end()) list.push_back(entry);
  }

  // What the adapters say where that means exactly these sites; else every site by its path.
  void choose_targets() {
    AdapterConfig& config = result_.config;
    const bool is_filtered =
        std::any_of(adapters_.begin(), adapters_.end(), [](const Adapter* adapter) {
          return !adapter->config.layers_to_transform.empty() ||
                 adapter->config.exclude_modules.index() != 0;
        });
    const bool is_one_selection =
        is_same([](const AdapterConfig& c) { return c.target_modules; }) &&
        is_same([](const AdapterConfig& c) { return c.exclude_modules; }) &&
        is_same([](const AdapterConfig& c) { return c.layers_to_transform; }) &&
        is_same([](const AdapterConfig& c) { return c.layers_pattern; });
    if (is_one_selection) return;
    if (!is_filtered && (unite_lists() || unite_expressions())) return;
    std::set<std::string> paths;
    for (const Site& site : sites_)
      if (site.shape_of().tied_to.empty() && site.shape_of().kind != LayerKind::parameter)
        paths.insert(pattern_path(site.shape_of()));
    config.target_modules = Names(paths.begin(), paths.end());
    config.exclude_modules = {};
    config.layers_to_transform.clear();
    config.layers_pattern.clear();
  }

  bool unite_lists() {
    std::set<std::string> entries;
    for (const Adapter* adapter : adapters_) {
      const Names* list = std::get_if<Names>(&adapter->config.target_modules);
      if (list == nullptr) return false;
      entries.insert(list->begin(), list->end());
    }
    result_.config.target_modules = Names(entries.begin(), entries.end());
    return true;
  }

  bool unite_expressions() {
    std::string united;
    for (const Adapter* adapter : adapters_) {
      const std::string* text = std::get_if<std::string>(&adapter->config.target_modules);
      if (text == nullptr || *text == "all-linear") return false;
      united += (united.empty() ? "(" : "|(") + *text + ")";
    }
    result_.config.target_modules = united;
    return true;
  }

  const std::vector<const Adapter*>& adapters_;
  const std::vector<Site>& sites_;
  std::optional<std::size_t> saved_from_, tokens_from_;
  std::vector<Adapter> remaining_;  // without what another adapter gives
  Carried result_;
};

}  // namespace

Carried carry_over(const std::vector<const Adapter*>& adapters, const std::vector<Site>& sites,
                   std::optional<std::size_t> saved_from) {
  return Carrying(adapters, sites, saved_from).run();
}

BaseDoubts base_doubts(const std::vector<const Adapter*>& adapters) {
  std::vector<std::optional<Manifest>> manifests;
  for (const Adapter* adapter : adapters) manifests.push_back(read_manifest(adapter->directory()));
  BaseDoubts doubts;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    for (std::size_t j = i + 1; j < adapters.size(); ++j) {
      const std::string both = adapters[i]->path.string() + " and " + adapters[j]->path.string();
      const StatedBase one = stated_base(*adapters[i], manifests[i]);
      const StatedBase two = stated_base(*adapters[j], manifests[j]);
      if (one.root && two.root) {
        if (*one.root != *two.root)
          doubts.contradictions.push_back(both + " record bases with the roots " +
                                          one.root->hex().substr(0, 12) + " and " +
                                          two.root->hex().substr(0, 12));
        continue;
      }
      Names tensors;
      if (manifests[i] && manifests[j])
        for (const auto& [base_name, digest] : manifests[i]->base_tensors)
          if (const auto other = manifests[j]->base_tensors.find(base_name);
              other != manifests[j]->base_tensors.end() && other->second != digest)
            tensors.push_back(base_name);
      if (!tensors.empty())
        doubts.contradictions.push_back(
            both + " record different weights of the base: " + rules::join_some(tensors));
      if (is_other_base(one, two))
        doubts.suspicions.push_back(both + " name different bases, \"" + *one.name + "\" and \"" +
                                    *two.name + "\", and nothing proves that they are one");
    }
  return doubts;
}

}  // namespace lora::combining
