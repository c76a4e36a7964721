#include "ops/repair_names.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

#include "lora/adapter/keys.h"
#include "lora/adapter/name_mapping.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/inner_wrapper.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

constexpr std::string_view kPeftPrefix = "base_model.model.";

struct Entry {
  std::string file_key;
  std::string name;  ///< without fronts that are no part of any scheme
  const Tensor* tensor;
  ParsedKey key;
  std::string earlier_path;  ///< module_path before any module was renamed
};

std::string count_of(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " name" : " names");
}

std::string with_dot(std::string text) {
  if (!text.empty() && text.back() != '.') text += '.';
  return text;
}

// Position of the prefix where a component begins; npos when it is nowhere.
std::size_t find_prefix(const std::string& name) {
  if (name.starts_with(kPeftPrefix)) return 0;
  const std::size_t found = name.find("." + std::string(kPeftPrefix));
  return found == std::string::npos ? found : found + 1;
}

bool is_wrapper(std::string_view part) {
  return part == "module" || part == "_orig_mod" || part == "_fsdp_wrapped_module";
}

// A front without the wrappers that parse_key knows.
std::string foreign_part(std::string front) {
  std::string foreign;
  while (!front.empty()) {
    const std::size_t dot = front.find('.');
    const std::string part = front.substr(0, dot);
    if (!is_wrapper(part)) foreign += part + ".";
    front = dot == std::string::npos ? std::string() : front.substr(dot + 1);
  }
  return foreign;
}

std::string why_wrapped(const std::string& wrapper) {
  if (wrapper == "_orig_mod") return "torch.compile names what it wraps so";
  if (wrapper == "module") return "data-parallel training names what it wraps so";
  return "FSDP names what it wraps so";
}

// `path` with the first run of the components `from` replaced by `to`; unchanged without one.
std::string replace_run(const std::string& path, const std::string& from, const std::string& to) {
  const std::string dotted = "." + path + ".";
  const std::size_t found = dotted.find("." + from + ".");
  if (found == std::string::npos) return path;
  std::string result = dotted.substr(0, found + 1) + (to.empty() ? "" : to + ".") +
                       dotted.substr(found + from.size() + 2);
  return result.substr(1, result.size() - 2);
}

class Names {
 public:
  Names(const TensorMap& tensors, const RepairOptions& options, const AdapterConfig* config,
        RepairReport& report)
      : options_(options), config_(config), report_(report) {
    for (const auto& [name, tensor] : tensors) entries_.push_back({name, name, &tensor, {}, {}});
    if (options.base) modules_ = list_modules(*options.base);
    for (const ModuleInfo& info : modules_) paths_.insert(info.module_path);
  }

  RepairedNames run() {
    take_prefix();
    take_foreign_front();
    parse();
    check_adapter_names();
    apply_map();
    find_modules();
    take_alphas();
    collect();
    return std::move(result_);
  }

 private:
  void add(const std::string& from, const std::string& to, const std::string& why) {
    report_.changes.push_back({"names", from, to, why});
  }

  [[noreturn]] void refuse(ErrorKind kind, const std::string& what, const std::string& hint) const {
    const std::string source = options_.adapter.string();
    throw Error(kind, "cannot repair " + source + ": " + what).in_file(source).with_hint(hint);
  }

  void take_prefix() {
    if (!options_.prefix) return;
    const std::string prefix = with_dot(*options_.prefix);
    std::size_t count = 0;
    for (Entry& entry : entries_) {
      if (!entry.name.starts_with(prefix)) continue;
      entry.name.erase(0, prefix.size());
      ++count;
    }
    if (count == 0)
      refuse(ErrorKind::usage, "no name begins with " + prefix,
             "lora inspect shows the names; --prefix takes what they begin with");
    add(prefix + " in " + count_of(count), "taken off", "--prefix says so");
  }

  bool all_exist(const std::string& front) const {
    return std::all_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      const std::size_t begin = find_prefix(entry.name);
      const ParsedKey key = parse_key(front + entry.name.substr(begin + kPeftPrefix.size()));
      return !key.is_lora() || paths_.contains(key.module_path);
    });
  }

  // Something in front of base_model.model. was put there by the tool that saved the file. Some
  // tools mean a module by it, whose place is behind the prefix.
  void take_foreign_front() {
    std::set<std::string> fronts;
    std::size_t count = 0;
    for (const Entry& entry : entries_) {
      const std::size_t begin = find_prefix(entry.name);
      if (begin == std::string::npos) return;
      fronts.insert(foreign_part(entry.name.substr(0, begin)));
      ++count;
    }
    if (fronts.size() != 1 || fronts.begin()->empty()) {
      if (fronts.size() > 1)
        refuse(ErrorKind::usage,
               "names have different fronts before base_model.model.: " +
                   rules::join_some({fronts.begin(), fronts.end()}),
               "--prefix takes one off");
      return;
    }
    const std::string front = *fronts.begin();
    if (options_.base == nullptr)
      refuse(ErrorKind::usage,
             "every name begins with " + front +
                 " before base_model.model.; it may be a module of the base or nothing at all",
             "give the base with --base DIR, or say that it is nothing: --prefix " + front);
    const bool is_module = all_exist(front);
    for (Entry& entry : entries_) {
      const std::size_t begin = find_prefix(entry.name);
      entry.name = std::string(kPeftPrefix) + (is_module ? front : "") +
                   entry.name.substr(begin + kPeftPrefix.size());
    }
    add(front + " before base_model.model. in " + count_of(count),
        is_module ? "base_model.model." + front : "taken off",
        is_module ? "all modules exist in the base with it behind the prefix"
                  : "the base has no such module there");
  }

  void parse() {
    std::map<std::string, std::size_t> wrapped;
    std::map<std::string, std::size_t> named;
    std::size_t bare = 0, doubled = 0, magnitudes = 0, copies = 0;
    for (Entry& entry : entries_) {
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
      add(wrapper + ". in " + count_of(count), "taken off", why_wrapped(wrapper));
    if (doubled != 0)
      add("base_model.model. twice in " + count_of(doubled), "base_model.model.",
          "the model was wrapped a second time before it was saved");
    if (bare != 0)
      add("no prefix in " + count_of(bare), "base_model.model.",
          "PEFT loads names with this prefix only");
    for (const auto& [name, count] : named)
      add("adapter name " + name + " in " + count_of(count), "taken off",
          "PEFT writes files without it and adds it when it loads them");
    if (magnitudes != 0)
      add("lora_magnitude_vector.weight in " + count_of(magnitudes), "lora_magnitude_vector",
          "the name PEFT writes; older releases added .weight");
    if (copies != 0)
      add("modules_to_save in " + count_of(copies), "taken off",
          "a wrapper of the live model, which PEFT leaves out of files");
  }

  static bool is_copy(const Entry& entry) {
    return entry.key.role == KeyRole::saved &&
           ("." + entry.name).find(".modules_to_save.") != std::string::npos;
  }

  // With bias="all" PEFT itself writes two more names for the bias of a saved module.
  bool is_kept_twin(const Entry& entry) const {
    return config_ != nullptr && config_->bias == BiasMode::all &&
           entry.name.starts_with(kPeftPrefix) && entry.name == entry.file_key &&
           entry.name.ends_with(".bias") && entry.key.adapter_name.empty() &&
           entry.key.wrappers.empty() && (is_copy(entry) || entry.key.role == KeyRole::original);
  }

  void check_adapter_names() const {
    std::set<std::string> names;
    for (const Entry& entry : entries_)
      if (entry.key.is_lora() || is_copy(entry)) names.insert(entry.key.adapter_name);
    names.erase("");
    if (names.size() <= 1) return;
    refuse(
        ErrorKind::usage,
        "it holds several adapters: " + rules::join_some({names.begin(), names.end()}),
        "take one out with lora save " + options_.adapter.string() + " --adapter-name NAME -o DIR");
  }

  void apply_map() {
    for (const auto& [from, to] : options_.map) {
      std::size_t count = 0;
      for (Entry& entry : entries_) {
        const std::string path = replace_run(entry.key.module_path, from, to);
        count += path == entry.key.module_path ? 0 : 1;
        entry.key.module_path = path;
      }
      if (count == 0)
        refuse(ErrorKind::usage, "no module path has the components " + from + " of --map",
               "lora inspect shows the module paths");
      add(from + " in " + count_of(count), to.empty() ? "taken off" : to, "--map says so");
      result_.is_moved = true;
    }
  }

  // A lone `inner` may be the wrapper of one streaming trainer or a module; only the base can tell.
  void mention_inner() {
    const auto count = std::count_if(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return ("." + entry.key.module_path + ".").find(".inner.") != std::string::npos;
    });
    if (count != 0)
      report_.notes.push_back(
          count_of(static_cast<std::size_t>(count)) +
          " have a component inner, which may be a wrapper: --base DIR tells, --map inner= takes "
          "it off");
  }

  // A streaming trainer wraps layers in modules called inner.
  void take_inner() {
    std::size_t count = 0;
    for (Entry& entry : entries_) {
      const auto path = without_inner(entry.key.module_path, paths_);
      if (!path) continue;
      entry.key.module_path = entry.earlier_path = *path;
      ++count;
    }
    if (count != 0)
      add("inner. in " + count_of(count), "taken off", "the base has these modules without it");
  }

  struct Shape {
    std::int64_t inputs = 0, outputs = 0;
  };

  std::map<std::string, Shape> shapes() const {
    std::map<std::string, Shape> found;
    for (const Entry& entry : entries_) {
      if (entry.tensor->shape.size() != 2) continue;
      const KeyRole role = entry.key.role;
      if (role == KeyRole::lora_a || role == KeyRole::embedding_a)
        found[entry.key.module_path].inputs = entry.tensor->shape[1];
      if (role == KeyRole::lora_b || role == KeyRole::embedding_b)
        found[entry.key.module_path].outputs = entry.tensor->shape[0];
    }
    return found;
  }

  void find_modules() {
    const Json* replication = config_ ? config_->other.find("layer_replication") : nullptr;
    if (options_.base == nullptr) {
      mention_inner();
      return;
    }
    take_inner();
    // Indices of replicated layers are those of a stack that the base does not have.
    if (replication != nullptr && !replication->is_null()) return;
    std::set<std::string> wanted;
    for (const Entry& entry : entries_)
      if (!entry.key.module_path.empty()) wanted.insert(entry.key.module_path);
    const std::map<std::string, Shape> known = shapes();
    std::map<std::string, const ModuleInfo*> infos;
    for (const ModuleInfo& info : modules_) infos[info.module_path] = &info;
    const NameMapping mapping = map_names(
        {wanted.begin(), wanted.end()}, {paths_.begin(), paths_.end()},
        [&](const std::string& path, const std::string& base_path) {
          const auto shape = known.find(path);
          const ModuleInfo& info = *infos.at(base_path);
          if (shape == known.end() || info.in_features == 0) return true;
          return (shape->second.inputs == 0 || shape->second.inputs == info.in_features) &&
                 (shape->second.outputs == 0 || shape->second.outputs == info.out_features);
        });
    require_places(mapping);
    for (const RenameRule& rule : mapping.rules)
      add(rule.from + "* in " + std::to_string(rule.modules) +
              (rule.modules == 1 ? " module" : " modules"),
          rule.to + "*", "the only modules of the base with the same ends, indices and shapes");
    for (Entry& entry : entries_) {
      const auto renamed = mapping.renames.find(entry.key.module_path);
      if (renamed == mapping.renames.end()) continue;
      entry.key.module_path = renamed->second;
      result_.is_moved = true;
    }
  }

  void require_places(const NameMapping& mapping) const {
    if (mapping.is_complete()) return;
    std::vector<std::string> faults;
    for (const auto& [path, candidates] : mapping.ambiguous)
      faults.push_back(path + " may be " + rules::join_some(candidates, 3));
    for (const std::string& path : mapping.unmatched) {
      const std::string nearest = nearest_name(path, {paths_.begin(), paths_.end()});
      faults.push_back(path + " is not in the base" +
                       (nearest.empty() ? "" : " (nearest: " + nearest + ")"));
    }
    refuse(ErrorKind::incompatible,
           "modules have no certain place in base " + options_.base->path.string() + ": " +
               rules::join_some(faults),
           "say which with --map OLD=NEW, or give the base this adapter was trained on");
  }

  bool has_factors(const std::string& module_path) const {
    return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      return entry.key.is_lora() && entry.key.module_path == module_path;
    });
  }

  void take_alphas() {
    std::vector<Entry> rest;
    for (Entry& entry : entries_) {
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
      report_.changes.push_back({"tensor",
                                 std::to_string(result_.alphas.size()) + " scalars <module>.alpha",
                                 "lora_alpha and alpha_pattern",
                                 "the strength the file itself records; PEFT keeps it in the "
                                 "configuration"});
    entries_ = std::move(rest);
  }

  void collect() {
    // Clean names first, so that a second spelling is the one that goes.
    std::stable_partition(entries_.begin(), entries_.end(), [](const Entry& entry) {
      return to_peft_key(entry.key) == entry.file_key;
    });
    std::vector<std::string> frozen, equal, contradicting;
    for (const Entry& entry : entries_) {
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
        if (clean != entry.file_key) report_.renamed.emplace_back(entry.file_key, clean);
      } else if (has_equal_bytes(place->second, *entry.tensor)) {
        equal.push_back(entry.file_key);
      } else {
        contradicting.push_back(entry.file_key + " and another name of " + clean);
      }
    }
    if (!contradicting.empty())
      refuse(ErrorKind::malformed,
             "the file has two values for one tensor: " + rules::join_some(contradicting),
             "remove the stale one, or save again from the checkpoint with lora save");
    for (const std::string& name : frozen)
      report_.changes.push_back({"tensor", name, "left out",
                                 "the frozen original beside a saved module; the base has it"});
    for (const std::string& name : equal)
      report_.changes.push_back(
          {"tensor", name, "left out", "a second name of a tensor with the same bytes"});
    std::sort(report_.renamed.begin(), report_.renamed.end());
    const bool is_explained =
        std::any_of(report_.changes.begin(), report_.changes.end(),
                    [](const RepairChange& change) { return change.what == "names"; });
    if (!report_.renamed.empty() && !is_explained)
      add("another spelling in " + count_of(report_.renamed.size()), "the spelling PEFT writes",
          "both mean the same tensors");
  }

  const RepairOptions& options_;
  const AdapterConfig* config_;
  RepairReport& report_;
  std::vector<Entry> entries_;
  ModuleList modules_;
  std::set<std::string> paths_;
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
  return Names(tensors, options, config, report).run();
}

}  // namespace lora
