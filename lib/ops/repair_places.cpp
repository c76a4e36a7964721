#include <algorithm>
#include <map>

#include "lora/adapter/name_mapping.h"
#include "ops/inner_wrapper.h"
#include "ops/repair_name_steps.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// `path` with the first run of the components `from` replaced by `to`; unchanged without one.
std::string replace_run(const std::string& path, const std::string& from, const std::string& to) {
  const std::string dotted = "." + path + ".";
  const std::size_t found = dotted.find("." + from + ".");
  if (found == std::string::npos) return path;
  std::string result = dotted.substr(0, found + 1) + (to.empty() ? "" : to + ".") +
                       dotted.substr(found + from.size() + 2);
  return result.substr(1, result.size() - 2);
}

class Places {
 public:
  Places(NameEntries& entries, NameSteps& steps) : entries_(entries), steps_(steps) {}

  bool run() {
    apply_map();
    find_modules();
    return is_moved_;
  }

 private:
  void apply_map() {
    for (const auto& [from, to] : steps_.options().map) {
      std::size_t count = 0;
      for (NameEntry& entry : entries_) {
        const std::string path = replace_run(entry.key.module_path, from, to);
        count += path == entry.key.module_path ? 0 : 1;
        entry.key.module_path = path;
      }
      if (count == 0)
        steps_.refuse(ErrorKind::usage, "no module path has the components " + from + " of --map",
                      "lora inspect shows the module paths");
      steps_.add(from + " in " + count_of_names(count), to.empty() ? "taken off" : to,
                 "--map says so");
      is_moved_ = true;
    }
  }

  // A lone `inner` may be the wrapper of one streaming trainer or a module; only the base can tell.
  void mention_inner() {
    const auto count = std::count_if(entries_.begin(), entries_.end(), [](const NameEntry& entry) {
      return ("." + entry.key.module_path + ".").find(".inner.") != std::string::npos;
    });
    if (count != 0)
      steps_.report().notes.push_back(
          count_of_names(static_cast<std::size_t>(count)) +
          " have a component inner, which may be a wrapper: --base DIR tells, --map inner= takes "
          "it off");
  }

  // A streaming trainer wraps layers in modules called inner.
  void take_inner() {
    std::size_t count = 0;
    for (NameEntry& entry : entries_) {
      const auto path = without_inner(entry.key.module_path, steps_.paths());
      if (!path) continue;
      entry.key.module_path = entry.earlier_path = *path;
      ++count;
    }
    if (count != 0)
      steps_.add("inner. in " + count_of_names(count), "taken off",
                 "the base has these modules without it");
  }

  struct Shape {
    std::int64_t inputs = 0, outputs = 0;
  };

  std::map<std::string, Shape> shapes() const {
    std::map<std::string, Shape> found;
    for (const NameEntry& entry : entries_) {
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
    const Json* replication =
        steps_.config() ? steps_.config()->other.find("layer_replication") : nullptr;
    if (steps_.options().base == nullptr) {
      mention_inner();
      return;
    }
    take_inner();
    // Indices of replicated layers are those of a stack that the base does not have.
    if (replication != nullptr && !replication->is_null()) return;
    std::set<std::string> wanted;
    for (const NameEntry& entry : entries_)
      if (!entry.key.module_path.empty()) wanted.insert(entry.key.module_path);
    const std::map<std::string, Shape> known = shapes();
    std::map<std::string, const ModuleInfo*> infos;
    for (const ModuleInfo& info : steps_.modules()) infos[info.module_path] = &info;
    const NameMapping mapping = map_names(
        {wanted.begin(), wanted.end()}, {steps_.paths().begin(), steps_.paths().end()},
        [&](const std::string& path, const std::string& base_path) {
          const auto shape = known.find(path);
          const ModuleInfo& info = *infos.at(base_path);
          if (shape == known.end() || info.in_features == 0) return true;
          return (shape->second.inputs == 0 || shape->second.inputs == info.in_features) &&
                 (shape->second.outputs == 0 || shape->second.outputs == info.out_features);
        });
    require_places(mapping);
    for (const RenameRule& rule : mapping.rules)
      steps_.add(rule.from + "* in " + std::to_string(rule.modules) +
                     (rule.modules == 1 ? " module" : " modules"),
                 rule.to + "*",
                 "the only modules of the base with the same ends, indices and shapes");
    for (NameEntry& entry : entries_) {
      const auto renamed = mapping.renames.find(entry.key.module_path);
      if (renamed == mapping.renames.end()) continue;
      entry.key.module_path = renamed->second;
      is_moved_ = true;
    }
  }

  void require_places(const NameMapping& mapping) const {
    if (mapping.is_complete()) return;
    std::vector<std::string> faults;
    for (const auto& [path, candidates] : mapping.ambiguous)
      faults.push_back(path + " may be " + rules::join_some(candidates, 3));
    for (const std::string& path : mapping.unmatched) {
      const std::string nearest =
          nearest_name(path, {steps_.paths().begin(), steps_.paths().end()});
      faults.push_back(path + " is not in the base" +
                       (nearest.empty() ? "" : " (nearest: " + nearest + ")"));
    }
    steps_.refuse(ErrorKind::incompatible,
                  "modules have no certain place in base " + steps_.options().base->path.string() +
                      ": " + rules::join_some(faults),
                  "say which with --map OLD=NEW, or give the base this adapter was trained on");
  }

  NameEntries& entries_;
  NameSteps& steps_;
  bool is_moved_ = false;
};

}  // namespace

bool place_modules(NameEntries& entries, NameSteps& steps) { return Places(entries, steps).run(); }

}  // namespace lora
