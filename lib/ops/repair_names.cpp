#include "ops/repair_names.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "ops/repair_name_steps.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

using rules::kPeftPrefix;

std::string why_wrapped(const std::string& wrapper) {
  if (wrapper == "_orig_mod") return "torch.compile names what it wraps so";
  if (wrapper == "module") return "data-parallel training names what it wraps so";
  return "FSDP names what it wraps so";
}

class Names {
 public:
  Names(const TensorMap& tensors, NameSteps steps) : steps_(std::move(steps)) {
    for (const auto& [name, tensor] : tensors) entries_.push_back({name, name, &tensor, {}, {}});
  }

  RepairedNames run() {
    take_fronts(entries_, steps_);
    parse();
    check_adapter_names();
    result_.is_moved = place_modules(entries_, steps_);
    take_alphas();
    collect();
    return std::move(result_);
  }

 private:
  void parse() {
    std::map<std::string, std::size_t> wrapped;
    std::map<std::string, std::size_t> named;
    std::size_t bare = 0, doubled = 0, magnitudes = 0, copies = 0;
    for (NameEntry& entry : entries_) {
      entry.key = parse_key(entry.name);
      std::set<std::string> wrappers(entry.key.wrappers.begin(), entry.key.wrappers.end());
      bare += entry.key.has_peft_prefix ? 0 : 1;
      bool is_doubled = false;
      while (entry.key.module_path.starts_with(kPeftPrefix)) {
        is_doubled = true;
        const std::string adapter = entry.key.adapter_name;
        entry.key = parse_key(to_peft_key(entry.key).substr(kPeftPrefix.size()));
        entry.key.adapter_name = adapter;
        wrappers.insert(entry.key.wrappers.begin(), entry.key.wrappers.end());
      }
      doubled += is_doubled ? 1 : 0;
      entry.earlier_path = entry.key.module_path;
      for (const std::string& wrapper : wrappers) ++wrapped[wrapper];
      if (!entry.key.adapter_name.empty()) ++named[entry.key.adapter_name];
      magnitudes += entry.key.role == KeyRole::magnitude && entry.name.ends_with(".weight") &&
                    entry.key.adapter_name.empty();
      copies += is_copy(entry) && !is_kept_twin(entry);
    }
    for (const auto& [wrapper, count] : wrapped)
      steps_.add(wrapper + ". in " + count_of_names(count), "taken off", why_wrapped(wrapper));
    if (doubled != 0)
      steps_.add("base_model.model. twice in " + count_of_names(doubled), "base_model.model.",
                 "the model was wrapped a second time before it was saved");
    if (bare != 0)
      steps_.add("no prefix in " + count_of_names(bare), "base_model.model.",
                 "PEFT loads names with this prefix only");
    for (const auto& [name, count] : named)
      steps_.add("adapter name " + name + " in " + count_of_names(count), "taken off",
                 "PEFT writes files without it and adds it when it loads them");
    if (magnitudes != 0)
      steps_.add("lora_magnitude_vector.weight in " + count_of_names(magnitudes),
                 "lora_magnitude_vector", "the name PEFT writes; older releases added .weight");
    if (copies != 0)
      steps_.add("modules_to_save in " + count_of_names(copies), "taken off",
                 "a wrapper of the live model, which PEFT leaves out of files");
  }

  static bool is_copy(const NameEntry& entry) {
    return entry.key.role == KeyRole::saved &&
           ("." + entry.name).find(".modules_to_save.") != std::string::npos;
  }

  // With bias="all" PEFT itself writes two more names for the bias of a saved module.
  bool is_kept_twin(const NameEntry& entry) const {
    return steps_.config() != nullptr && steps_.config()->bias == BiasMode::all &&
           entry.name.starts_with(kPeftPrefix) && entry.name == entry.file_key &&
           entry.name.ends_with(".bias") && entry.key.adapter_name.empty() &&
           entry.key.wrappers.empty() && (is_copy(entry) || entry.key.role == KeyRole::original);
  }

  void check_adapter_names() const {
    std::set<std::string> names;
    for (const NameEntry& entry : entries_)
      if (entry.key.is_lora() || is_copy(entry)) names.insert(adapter_of(entry.key));
    names.erase("");
    if (names.size() <= 1) return;
    steps_.refuse(ErrorKind::usage,
                  "it holds several adapters: " + rules::join_some({names.begin(), names.end()}),
                  "take one out with lora save " + steps_.options().adapter.string() +
                      " --adapter-name NAME -o DIR");
  }

  bool has_factors(const std::string& module_path) const {
    return std::any_of(entries_.begin(), entries_.end(), [&](const NameEntry& entry) {
      return entry.key.is_lora() && entry.key.module_path == module_path;
    });
  }

  void take_alphas() {
    std::vector<NameEntry> rest;
    for (NameEntry& entry : entries_) {
      const bool is_alpha = entry.key.role == KeyRole::saved && entry.key.parameter == "alpha" &&
                            entry.tensor->numel() == 1 && is_float(entry.tensor->dtype) &&
                            has_factors(entry.key.module_path);
      if (is_alpha) {
        result_.alphas[entry.key.module_path] = entry.tensor->to_f64()[0];
      } else {
        rest.push_back(std::move(entry));
      }
    }
    if (!result_.alphas.empty())
      steps_.report().changes.push_back(
          {"tensor", std::to_string(result_.alphas.size()) + " scalars <module>.alpha",
           "lora_alpha and alpha_pattern",
           "the strength the file itself records; PEFT keeps it in the "
           "configuration"});
    entries_ = std::move(rest);
  }

  void collect() {
    // Clean names first, so that a second spelling is the one that goes.
    std::stable_partition(entries_.begin(), entries_.end(), [](const NameEntry& entry) {
      return to_peft_key(entry.key) == entry.file_key;
    });
    std::vector<std::string> frozen, equal, contradicting;
    for (const NameEntry& entry : entries_) {
      if (is_kept_twin(entry)) {
        result_.tensors.emplace(entry.file_key, *entry.tensor);
        continue;
      }
      if (entry.key.role == KeyRole::original &&
          !entry.key.parameter.starts_with("token_adapter.")) {
        frozen.push_back(entry.file_key);
        continue;
      }
      const std::string clean = to_peft_key(entry.key);
      const auto [place, is_new] = result_.tensors.emplace(clean, *entry.tensor);
      if (is_new) {
        if (entry.earlier_path != entry.key.module_path) {
          ParsedKey earlier = entry.key;
          earlier.module_path = entry.earlier_path;
          result_.earlier_paths[entry.key.module_path] = entry.earlier_path;
          result_.earlier_keys[clean] = to_peft_key(earlier);
        }
        if (clean != entry.file_key) steps_.report().renamed.emplace_back(entry.file_key, clean);
      } else if (has_equal_bytes(place->second, *entry.tensor)) {
        equal.push_back(entry.file_key);
      } else {
        contradicting.push_back(entry.file_key + " and another name of " + clean);
      }
    }
    if (!contradicting.empty())
      steps_.refuse(ErrorKind::malformed,
                    "the file has two values for one tensor: " + rules::join_some(contradicting),
                    "remove the stale one, or save again from the checkpoint with lora save");
    for (const std::string& name : frozen)
      steps_.report().changes.push_back(
          {"tensor", name, "left out",
           "the frozen original beside a saved module; the base has it"});
    for (const std::string& name : equal)
      steps_.report().changes.push_back(
          {"tensor", name, "left out", "a second name of a tensor with the same bytes"});
    std::sort(steps_.report().renamed.begin(), steps_.report().renamed.end());
    const bool is_explained =
        std::any_of(steps_.report().changes.begin(), steps_.report().changes.end(),
                    [](const RepairChange& change) { return change.what == "names"; });
    if (!steps_.report().renamed.empty() && !is_explained)
      steps_.add("another spelling in " + count_of_names(steps_.report().renamed.size()),
                 "the spelling PEFT writes", "both mean the same tensors");
  }

  NameSteps steps_;
  NameEntries entries_;
  RepairedNames result_;
};

const std::string& found_or_same(const std::map<std::string, std::string>& map,
                                 const std::string& name) {
  const auto found = map.find(name);
  return found == map.end() ? name : found->second;
}

}  // namespace

const std::string& RepairedNames::earlier_path(const std::string& path) const {
  return found_or_same(earlier_paths, path);
}

const std::string& RepairedNames::earlier_key(const std::string& key) const {
  return found_or_same(earlier_keys, key);
}

RepairedNames repair_names(const TensorMap& tensors, const RepairOptions& options,
                           const AdapterConfig* config, RepairReport& report) {
  return Names(tensors, NameSteps(options, config, report)).run();
}

}  // namespace lora
