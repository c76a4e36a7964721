#include "lora/ops/inspect.h"

#include <algorithm>
#include <set>

#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/torch_file.h"
#include "ops/merge/record.h"
#include "ops/module_figures.h"

namespace lora {
namespace {

void count_tensors(const TensorMap& tensors, InspectReport& report) {
  for (const auto& [name, tensor] : tensors) {
    DTypeShare& share = report.dtypes[std::string(to_string(tensor.dtype))];
    share.tensors += 1;
    share.elements += tensor.numel();
    share.bytes += tensor.bytes.size();
    report.tensors += 1;
    report.elements += tensor.numel();
    report.bytes += tensor.bytes.size();
    report.listed.emplace_back(name, tensor);
  }
}

std::string container_of(const std::vector<std::filesystem::path>& files) {
  if (files.empty()) return "none";
  const bool is_pickle = looks_like_torch_file(files.front());
  const std::string name = is_pickle ? "pickle" : "safetensors";
  return files.size() == 1 ? name : name + ", " + std::to_string(files.size()) + " shards";
}

template <typename T>
void insert_sorted(std::vector<T>& values, T value) {
  const auto place = std::lower_bound(values.begin(), values.end(), value);
  if (place == values.end() || *place != value) values.insert(place, value);
}

std::vector<ModuleGroup> group_modules(const Adapter& adapter,
                                       const std::vector<ModuleFigures>& figures) {
  std::vector<ModuleGroup> groups;
  for (std::size_t i = 0; i < adapter.modules.size(); ++i) {
    const LoraModule& module = adapter.modules[i];
    const std::string name = module.module_path.substr(module.module_path.rfind('.') + 1);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const ModuleGroup& g) { return g.name == name; });
    if (group == groups.end()) {
      groups.push_back({});
      groups.back().name = name;
      group = groups.end() - 1;
    }
    group->count += 1;
    group->parameters += module.a.numel() + module.b.numel();
    insert_sorted(group->ranks, module.rank);
    insert_sorted(group->scalings, module.scaling);
    if (figures.empty()) continue;
    group->mean_norm += figures[i].update.norm;
    group->mean_effective_rank += figures[i].update.effective_rank;
    group->largest_norm = std::max(group->largest_norm, figures[i].update.norm);
  }
  for (ModuleGroup& group : groups) {
    group.mean_norm /= static_cast<double>(group.count);
    group.mean_effective_rank /= static_cast<double>(group.count);
  }
  return groups;
}

void inspect_adapter(const InspectOptions& options, InspectReport& report) {
  report.kind = "adapter";
  report.adapter = open_adapter(options.path, options.config);
  const Adapter& adapter = *report.adapter;
  report.container = container_of({adapter.weights_path});
  count_tensors(adapter.tensors, report);
  if (options.with_statistics)
    report.modules = adapter_figures(adapter, nullptr, options.threads, {}).modules;
  report.groups = group_modules(adapter, report.modules);
  report.manifest = read_manifest(adapter.directory());
  if (report.manifest) report.history = report.manifest->history;
  if (report.manifest && report.manifest->base_root)
    report.base_root = report.manifest->base_root->hex();
  for (const KeyProblem& problem : adapter.problems)
    report.notes.push_back(problem.key + ": " + problem.message);
  if (!adapter.unclean_keys.empty())
    report.notes.push_back(
        std::to_string(adapter.unclean_keys.size()) +
        " keys are not as PEFT writes them, first: " + adapter.unclean_keys.front());
}

// What lora merge recorded, as a step of a history.
void inspect_merge(const std::filesystem::path& folder, InspectReport& report) {
  const auto path = folder / merging::kRecordName;
  std::error_code ignored;
  if (folder.empty() || !std::filesystem::is_regular_file(path, ignored)) return;
  try {
    const JsonObject step = merging::history_of(read_json_file(path));
    report.history = {step};
    const Json* root = step.find("result");
    if (report.base_root && root != nullptr && !(*root == Json(*report.base_root)))
      report.notes.push_back(std::string(merging::kRecordName) +
                             " records another root: the weights were changed after the merge");
  } catch (const Error& error) {
    report.notes.push_back(error.message());
  }
}

void inspect_checkpoint(const InspectOptions& options, InspectReport& report) {
  const Checkpoint checkpoint = open_checkpoint(options.path.string());
  report.kind = checkpoint.config && !checkpoint.is_inferred ? "checkpoint" : "tensors";
  report.container = container_of(checkpoint.files);
  if (checkpoint.config) report.model_type = checkpoint.config->model_type;
  count_tensors(checkpoint.tensors, report);
  report.aliases = checkpoint.aliases;
  report.notes = checkpoint.notes;
  const auto lock = checkpoint.directory / kBaseLockName;
  if (!checkpoint.directory.empty() && std::filesystem::exists(lock))
    report.base_root = read_base_lock(lock).root.hex();
  inspect_merge(checkpoint.directory, report);
}

}  // namespace

InspectReport inspect(const InspectOptions& options) {
  InspectReport report;
  report.path = options.path;
  if (options.config || is_adapter_directory(options.path)) {
    inspect_adapter(options, report);
  } else {
    inspect_checkpoint(options, report);
  }
  return report;
}

}  // namespace lora
