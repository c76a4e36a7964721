#include "lora/ops/fit.h"

#include <algorithm>
#include <set>

#include "lora/adapter/targets.h"
#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

std::string update_shape(const LoraModule& module) {
  return "[" + std::to_string(module.b.shape[0]) + ", " + std::to_string(module.a.shape[1]) + "]";
}

std::string base_shape(const ModuleInfo& info) {
  return "[" + std::to_string(info.out_features) + ", " + std::to_string(info.in_features) + "]";
}

}  // namespace

std::vector<std::string> fit_problems(const Adapter& adapter, const Checkpoint& base) {
  std::vector<std::string> problems;
  std::set<std::string> damaged;
  for (const KeyProblem& problem : adapter.problems) {
    problems.push_back(problem.message);
    damaged.insert(parse_key(problem.key).module_path);
  }
  const ModuleList modules = list_modules(base);
  const bool is_transformers = base.config && base.config->is_transformers();
  const ResolvedTargets targets = resolve_targets(adapter.config, modules, is_transformers);
  std::set<std::string> expected;
  for (const ModuleInfo& info : targets.lora) {
    expected.insert(info.module_path);
    const LoraModule* module = adapter.find(info.module_path);
    if (module == nullptr) {
      if (!damaged.contains(info.module_path))
        problems.push_back(info.module_path + ": missing, targeted and without tensors");
    } else if (module->a.shape[1] != info.in_features || module->b.shape[0] != info.out_features) {
      problems.push_back(info.module_path + ": misshaped, update " + update_shape(*module) +
                         ", base " + base_shape(info));
    }
  }
  for (const LoraModule& module : adapter.modules)
    if (!expected.contains(module.module_path))
      problems.push_back(module.module_path + ": unexpected, not a target in this base");
  for (const ModuleInfo& info : targets.saved) {
    const std::string prefix = info.module_path + ".";
    const auto first = adapter.replacements.lower_bound(prefix);
    if (first == adapter.replacements.end() || !first->first.starts_with(prefix))
      problems.push_back(info.module_path + ": missing, to be saved and without tensors");
  }
  for (const auto& [name, tensor] : adapter.replacements) {
    const Tensor* original = base.find(name);
    if (original == nullptr) {
      problems.push_back(name + ": unexpected, the base has no such parameter");
    } else if (original->shape != tensor.shape) {
      problems.push_back(name + ": misshaped, " + shape_to_string(tensor.shape) + ", base " +
                         shape_to_string(original->shape));
    }
  }
  return problems;
}

void require_fit(const Adapter& adapter, const Checkpoint& base) {
  const std::vector<std::string> problems = fit_problems(adapter, base);
  if (problems.empty()) return;
  constexpr std::size_t kShown = 10;
  throw Error(ErrorKind::incompatible, "the adapter " + adapter.path.string() +
                                           " does not fit base " + base.path.string() + ": " +
                                           rules::join_some(problems, kShown))
      .in_file(adapter.path.string())
      .with_hint(
          "give the base this adapter was trained on; lora verify ADAPTER --base BASE lists "
          "every finding");
}

BaseLock lock_of(const Checkpoint& base, int threads, const Sinks& sinks) {
  const auto recorded = base.directory / kBaseLockName;
  if (!base.directory.empty() && std::filesystem::exists(recorded)) return read_base_lock(recorded);
  return compute_base_lock(base, threads, sinks);
}

void require_recorded_base(const Manifest& manifest, const BaseLock& base,
                           const std::string& adapter, const std::string& base_path) {
  if (!manifest.base_root || *manifest.base_root == base.root) return;
  std::vector<std::string> different;
  for (const auto& [name, digest] : manifest.base_tensors) {
    const auto now = base.tensors.find(name);
    if (now == base.tensors.end() || now->second.digest != digest) different.push_back(name);
  }
  throw Error(ErrorKind::incompatible,
              adapter + " was made for another base than " + base_path + ": root " +
                  base.root.hex().substr(0, 12) + ", recorded " +
                  manifest.base_root->hex().substr(0, 12) +
                  (different.empty() ? "; the targeted tensors are equal, others differ"
                                     : "; different: " + rules::join_some(different)))
      .in_file(adapter)
      .with_hint("give the recorded base");
}

}  // namespace lora
