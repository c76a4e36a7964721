#include "lora/ops/verify_merged.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <system_error>

#include "lora/adapter/token_indices.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/checkpoint/grow_vocabulary.h"
#include "lora/format/json.h"
#include "ops/merge/claims.h"
#include "ops/replay/explain.h"
#include "ops/replay/plan.h"
#include "ops/replay/target.h"

namespace lora {
namespace {

using replay::Outcome;
using replay::Target;

bool is_adapter_key(const std::string& name) {
  constexpr std::array<std::string_view, 6> kParts{"base_layer",       "lora_",
                                                   "base_model.model", "modules_to_save",
                                                   "original_module",  "token_adapter"};
  return std::any_of(kParts.begin(), kParts.end(),
                     [&](std::string_view part) { return name.find(part) != std::string::npos; });
}

MergedTensor tensor_of(const Target& target, const Outcome& outcome) {
  MergedTensor tensor;
  tensor.base_name = target.base_name;
  tensor.module_path = target.module_path;
  tensor.proof = outcome.proof;
  tensor.compute = outcome.compute;
  tensor.shape = target.merged.shape;
  tensor.elements = target.merged.numel();
  tensor.outside = outcome.outside;
  tensor.first_outside = outcome.first_outside;
  tensor.found = outcome.found;
  tensor.expected = outcome.expected;
  tensor.worst_ulps = outcome.worst_ulps;
  tensor.note = target.not_replayed;
  if (!target.misshaped.empty()) {
    tensor.proof = MergeProof::missing;
    tensor.note = target.misshaped;
  }
  const replay::Sums& sums = outcome.sums;
  if (sums.wanted > 0) {
    tensor.fitted = sums.overlap / sums.wanted;
    tensor.survived = sums.survived / sums.wanted;
    if (sums.found > 0) tensor.cosine = sums.overlap / std::sqrt(sums.wanted * sums.found);
  }
  if (sums.count > 0)
    tensor.changed = static_cast<double>(sums.changed) / static_cast<double>(sums.count);
  return tensor;
}

bool is_from_adapter(const Target& target) {
  return target.is_saved || !target.replaced_rows.empty();
}

// Which of the tensors that should be the adapter's are still the base's.
void find_dropped(const replay::Plan& plan, const std::vector<Outcome>& outcomes,
                  const Checkpoint& base, const MergedOptions& options, MergedReport& report) {
  std::vector<Target> targets;
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < plan.targets.size(); ++i) {
    report.tensors[i].is_from_adapter = is_from_adapter(plan.targets[i]);
    const std::string name = replay::stored_name(base, plan.targets[i].base_name);
    if (!is_from_adapter(plan.targets[i]) || outcomes[i].fits() || name.empty()) continue;
    Target target = plan.targets[i];
    if (base.tensors.at(name).shape != target.merged.shape) continue;
    target.base = base.tensors.at(name);
    target.is_saved = false;
    target.replaced_rows.clear();
    target.misshaped.clear();
    targets.push_back(std::move(target));
    indices.push_back(i);
  }
  const auto found = replay::replay(targets, options.threads, options.sinks);
  for (std::size_t i = 0; i < found.size(); ++i)
    report.tensors[indices[i]].holds_base = found[i].fits();
}

// What the tied matrix holds, where it does not hold the sum of all updates.
void settle_shared(replay::Plan& plan, std::vector<Outcome>& outcomes, const MergedOptions& options,
                   std::vector<std::string>& remarks) {
  for (replay::SharedUpdate& shared : plan.shared) {
    Outcome& outcome = outcomes[shared.target];
    const std::string name = plan.targets[shared.target].base_name;
    const auto tell = [&](const std::string& what) {
      remarks.push_back(name + " is embedding and output head in one: " + what);
    };
    if (outcome.fits() && shared.alternatives.size() == 1) {
      if (!shared.has_own_module)
        tell("the update of " + shared.modules.front() +
             " changes both, as PEFT's merge does with tied weights; the model before merging "
             "changes the head alone");
      continue;
    }
    if (outcome.fits()) {
      tell(shared.is_one_update
               ? "it holds the update of ensure_weight_tying twice, as PEFT's merge leaves it; the "
                 "model before merging applies it once to each"
               : "it holds the updates of both, as PEFT's merge leaves them; the model before "
                 "merging applies each to its own");
      continue;
    }
    if (shared.alternatives.size() < 2 || outcome.proof == MergeProof::not_replayed) continue;
    const auto alone = replay::replay(shared.alternatives, options.threads, options.sinks);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      if (!alone[i].fits()) continue;
      outcome = alone[i];
      plan.targets[shared.target] = shared.alternatives[i];
      if (!shared.is_one_update)
        tell("it holds the update of " + shared.modules[i] + " alone; the others are lost");
      break;
    }
  }
}

// A tied head that is stored beside its embedding counts in the index, and is an alias here.
std::uint64_t listed_bytes(const Json& index, const Checkpoint& merged) {
  std::uint64_t bytes = 0;
  const Json* weight_map = index.find("weight_map");
  if (const JsonObject* names = weight_map == nullptr ? nullptr : weight_map->as_object())
    for (const auto& [name, file] : *names)
      if (const Tensor* tensor = merged.find(name)) bytes += tensor->bytes.size();
  return bytes;
}

void check_index(const Checkpoint& merged, MergedReport& report) {
  for (const auto& [name, tensor] : merged.tensors) report.total_bytes += tensor.bytes.size();
  for (const char* name : {"model.safetensors.index.json", "pytorch_model.bin.index.json"}) {
    const std::filesystem::path path = merged.directory / name;
    std::error_code ignored;
    // A single file of the standard name wins over an index.
    if (merged.directory.empty() || !std::filesystem::exists(path, ignored) ||
        (merged.files.size() == 1 &&
         path.filename().string().starts_with(merged.files.front().filename().string() + ".")))
      continue;
    const Json document = read_json_file(path);
    const Json* metadata = document.find("metadata");
    const Json* size = metadata == nullptr ? nullptr : metadata->find("total_size");
    if (size == nullptr) return;
    report.total_bytes = listed_bytes(document, merged);
    const auto bytes = size->as_double();
    if (!bytes || *bytes != static_cast<double>(report.total_bytes))
      report.total_size = bytes ? dump_json(*size) : std::string(size->type_name());
    return;
  }
}

void sum_up(const std::vector<Target>& targets, const std::vector<Outcome>& outcomes,
            MergedReport& report) {
  replay::Sums sums;
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (!targets[i].blocks.empty()) {
      report.has_update = true;
      sums.add(outcomes[i].sums);
    }
  if (sums.wanted > 0) report.survived = sums.survived / sums.wanted;
  if (sums.wanted > 0 && sums.found > 0)
    report.cosine = sums.overlap / std::sqrt(sums.wanted * sums.found);
  if (sums.count > 0)
    report.changed = static_cast<double>(sums.changed) / static_cast<double>(sums.count);
}

}  // namespace

std::string_view to_string(MergeProof proof) {
  switch (proof) {
    case MergeProof::unchanged:
      return "bit for bit the base";
    case MergeProof::saved:
      return "bit for bit the adapter's copy";
    case MergeProof::merge:
      return "bit for bit (PEFT merge)";
    case MergeProof::safe_merge:
      return "bit for bit (safe_merge)";
    case MergeProof::held_low:
      return "bit for bit (PEFT merge, adapter held in the base's dtype)";
    case MergeProof::one_ulp:
      return "within one ulp";
    case MergeProof::differs:
      return "differs";
    case MergeProof::missing:
      return "missing";
    case MergeProof::not_replayed:
      return "not replayed";
  }
  return "differs";
}

std::int64_t MergedReport::count(MergeProof proof) const {
  return std::count_if(tensors.begin(), tensors.end(),
                       [&](const MergedTensor& tensor) { return tensor.proof == proof; });
}

bool MergedReport::is_reproduced() const {
  return problem.empty() && extra.empty() && count(MergeProof::differs) == 0 &&
         count(MergeProof::missing) == 0 && count(MergeProof::not_replayed) == 0;
}

namespace {

// What is added, weights included.
std::vector<Adapter> weighted(const std::vector<WeightedAdapter>& given, const Checkpoint& base) {
  std::vector<Adapter> adapters;
  for (const WeightedAdapter& one : given) {
    adapters.push_back(replay::settled(one.adapter, base));
    apply_weight(adapters.back(), one.weight);
  }
  return adapters;
}

}  // namespace

MergedReport compare_merged(const Adapter& adapter, const Checkpoint& base,
                            const Checkpoint& merged, const MergedOptions& options) {
  return compare_merged(std::vector<WeightedAdapter>{{adapter, 1}}, base, merged, options);
}

MergedReport compare_merged(const std::vector<WeightedAdapter>& given, const Checkpoint& own_base,
                            const Checkpoint& merged, const MergedOptions& options) {
  MergedReport report;
  report.path = merged.path;
  const std::vector<Adapter> adapters = weighted(given, own_base);
  std::vector<const Adapter*> active;
  for (const Adapter& adapter : adapters) active.push_back(&adapter);
  const std::optional<Checkpoint> grown = grown_for(own_base, token_indices_of(active));
  const Checkpoint& base = grown ? *grown : own_base;
  replay::Plan plan = replay::make_plan(active, base, merged);
  std::vector<Outcome> outcomes = replay::replay(plan.targets, options.threads, options.sinks);
  settle_shared(plan, outcomes, options, report.shared);
  if (adapters.size() == 1)
    report.explanations =
        replay::explain({plan.targets, outcomes}, adapters.front(), base, merged, options);
  for (std::size_t i = 0; i < plan.targets.size(); ++i)
    report.tensors.push_back(tensor_of(plan.targets[i], outcomes[i]));
  find_dropped(plan, outcomes, base, options, report);
  report.left_out = plan.left_out;
  for (const std::string& name : plan.missing) {
    MergedTensor absent;
    absent.base_name = name;
    absent.proof = MergeProof::missing;
    absent.is_from_adapter =
        std::any_of(adapters.begin(), adapters.end(),
                    [&](const Adapter& adapter) { return adapter.replacements.contains(name); });
    report.tensors.push_back(std::move(absent));
  }
  std::sort(report.tensors.begin(), report.tensors.end(),
            [](const auto& a, const auto& b) { return a.base_name < b.base_name; });
  for (const std::string& name : plan.extra)
    (is_adapter_key(name) ? report.adapter_keys : report.extra).push_back(name);
  std::error_code ignored;
  report.has_adapter_config =
      !merged.directory.empty() &&
      std::filesystem::exists(merged.directory / "adapter_config.json", ignored);
  check_index(merged, report);
  report.record =
      merging::contradicted_claims(given, own_base, merged, options.threads, options.sinks);
  sum_up(plan.targets, outcomes, report);
  return report;
}

bool is_lossy_merge(double survived, double cosine) {
  return survived < 0.5 || cosine < std::sqrt(0.5);
}

MergedReport unreadable_merged(const std::filesystem::path& path, const Error& error) {
  MergedReport report;
  report.path = path;
  report.problem = error.message();
  report.is_index_problem =
      error.message().find("index") != std::string::npos && error.kind() == ErrorKind::malformed;
  return report;
}

}  // namespace lora
