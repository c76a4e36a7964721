#include "lora/ops/fit.h"

#include "lora/base/error.h"
#include "ops/accounting.h"
#include "ops/base_targets.h"
#include "ops/rules/rule.h"

namespace lora {

std::vector<std::string> fit_problems(Adapter& adapter, const Checkpoint& base) {
  const ModuleList stored = list_modules(base);
  settle_with(adapter, base, stored);
  std::vector<std::string> problems;
  for (const KeyProblem& problem : adapter.problems) problems.push_back(problem.message);
  const ResolvedTargets targets = targets_in(adapter.config, base, stored);
  const Accounting accounting =
      account(adapter, base, replicate_layers(adapter.config, stored), targets);
  for (const MissingPart& part : accounting.missing)
    problems.push_back(part.name + ": missing" + describe(part.kind));
  for (const MisshapedSite& site : accounting.misshaped)
    problems.push_back(site.name + ": misshaped, " + site.found + ", base " + site.expected);
  for (const UnexpectedSite& site : accounting.unexpected)
    problems.push_back(site.name + ": unexpected, " + describe(site));
  return problems;
}

void require_fit(Adapter& adapter, const Checkpoint& base) {
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

bool is_locked(const Checkpoint& base) {
  return !base.directory.empty() && std::filesystem::exists(base.directory / kBaseLockName);
}

BaseLock lock_of(const Checkpoint& base, int threads, const Sinks& sinks,
                 const std::map<std::string, Digest>& known) {
  if (is_locked(base)) return read_base_lock(base.directory / kBaseLockName);
  return compute_base_lock(base, threads, sinks, known);
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
