#include "engine/train/setup.h"

#include <utility>

#include "engine/base_change.h"
#include "engine/quantised_base.h"
#include "engine/train/adapter_init.h"
#include "engine/train/checkpoint_state.h"
#include "engine/train/settings.h"
#include "engine/train/training_data.h"
#include "lora/adapter/manifest.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora::engine {
namespace {

Digest digest_of_file(const std::filesystem::path& path) {
  return sha256(MappedFile::open(path)->bytes());
}

void continue_adapter(RunSetup& setup, Adapter adapter) {
  check_continuable(adapter);
  setup.continued = RecordedFile{adapter.path, digest_of_file(adapter.weights_path)};
  if (const auto manifest = read_manifest(adapter.path)) setup.history = manifest->history;
  setup.config = adapter.config;
  setup.initial = std::move(adapter);
}

void report_dead_entries(const ResolvedTargets& targets, const Sinks& sinks) {
  const auto report = [&](const char* what, const std::vector<std::string>& entries) {
    for (const std::string& entry : entries)
      sinks.warning(std::string(what) + " '" + entry + "' matches no module of the base");
  };
  report("target_modules entry", targets.dead_targets);
  report("modules_to_save entry", targets.dead_saved);
  report("rank or alpha pattern", targets.dead_patterns);
}

void create_new_adapter(RunSetup& setup, const AdapterConfig& requested, const Sinks& sinks) {
  const TrainOptions& options = setup.options;
  const Checkpoint& base = *options.base;
  const ModuleList modules = list_modules(base);
  setup.config = complete_config(requested, base, modules, options.base_source, options.init);
  const bool is_transformers = base.config && base.config->is_transformers();
  const ResolvedTargets targets = resolve_targets(setup.config, modules, is_transformers);
  report_dead_entries(targets, sinks);
  set_weight_layout(setup.config, targets);
  setup.initial = create_adapter(setup.config, targets, base, options.init, options.seed,
                                 options.compute, options.base_dtype);
  if (!base_change_of(setup.config)) return;
  for (const auto& [key, tensor] : setup.initial.tensors)
    if (const KeyRole role = parse_key(key).role;
        role == KeyRole::lora_a || role == KeyRole::lora_b)
      setup.first_factors[key] = tensor;
}

AdapterConfig requested_config(const RunSetup& setup) {
  const TrainOptions& options = setup.options;
  AdapterConfig config = options.adapter_config ? *options.adapter_config : AdapterConfig{};
  train_added_tokens(config, setup.added, *options.base);
  return config;
}

void reopen_continued_adapter(RunSetup& setup, const TrainRun& run) {
  const RecordedFile& recorded = *run.initial_adapter;
  continue_adapter(setup, open_adapter(recorded.path));
  if (setup.continued->digest != recorded.digest)
    throw Error(ErrorKind::incompatible, "cannot resume " + run.path.string() +
                                             ": the adapter it continues, " +
                                             recorded.path.string() + ", has changed since")
        .in_file(recorded.path.string());
}

// The adapter of the newest checkpoint, or what the run had begun with when it stopped before the
// first one.
void restore_adapter(RunSetup& setup, const Sinks& sinks) {
  const TrainRun& run = *setup.resumed;
  const AdapterConfig recorded = parse_adapter_config(run.adapter_config, run.path.string());
  if (!setup.checkpoint.empty()) {
    setup.initial = open_adapter(setup.checkpoint);
    const auto manifest = read_manifest(setup.checkpoint);
    if (manifest && !manifest->history.empty())
      setup.history.assign(manifest->history.begin(), manifest->history.end() - 1);
  } else if (run.initial_adapter) {
    reopen_continued_adapter(setup, run);
  } else {
    create_new_adapter(setup, recorded, sinks);
  }
  setup.continued = run.initial_adapter;
  setup.config = recorded;
}

// A checkpoint holds the factors its run began with; others are found in the base again.
void find_first_factors(RunSetup& setup) {
  if (!base_change_of(setup.config) || !setup.first_factors.empty()) return;
  setup.first_factors =
      setup.checkpoint.empty()
          ? first_factors_of(setup.initial, *setup.options.base, setup.options.compute)
          : read_first_factors(setup.checkpoint);
}

}  // namespace

RunSetup prepare_run(const TrainOptions& given, const Sinks& sinks) {
  RunSetup setup;
  setup.options = given;
  if (given.resume) {
    setup.resumed = read_train_run(given.run_dir);
    setup.options = resumed_options(given, *setup.resumed);
    const std::vector<std::int64_t> steps = checkpoint_steps(given.run_dir);
    if (!steps.empty()) setup.checkpoint = checkpoint_path(given.run_dir, steps.back());
  }
  const TrainOptions& options = setup.options;
  check_settings(options);
  if (options.base == nullptr)
    throw Error(ErrorKind::usage, "no base was given").with_hint("pass --base BASE");
  check_quantisable(*options.base, options.base_dtype);
  setup.guard = std::make_unique<BaseGuard>(*options.base, options.base_lock, options.threads);
  setup.tokenizer = read_tokenizer_files(options.base->directory);

  setup.added = add_tokens(*options.base, options.add_tokens);
  if (setup.added.base) setup.options.base = setup.added.base.get();

  if (setup.resumed)
    restore_adapter(setup, sinks);
  else if (options.initial_adapter != nullptr)
    continue_adapter(setup, *options.initial_adapter);
  else
    create_new_adapter(setup, requested_config(setup), sinks);

  find_first_factors(setup);
  setup.data = load_training_data(options, options.data, sinks);
  if (!options.eval_data.empty())
    setup.eval = load_training_data(options, options.eval_data, sinks);
  setup.plan = make_plan(options, setup.data);
  sinks.throw_if_cancelled();

  if (setup.resumed) {
    const TrainRun& run = *setup.resumed;
    require_same_files(run.data, setup.data.examples(), run.path);
    if (setup.eval) require_same_files(run.eval_data, setup.eval->examples(), run.path);
    if (setup.plan.total_steps < run.total_steps)
      throw Error(ErrorKind::usage, "cannot resume " + run.path.string() + " with " +
                                        std::to_string(setup.plan.total_steps) +
                                        " steps: the run has " + std::to_string(run.total_steps) +
                                        ", and steps may only grow");
    setup.guard->require_same_as(run.path);
  }
  return setup;
}

ModelCounts count_parameters(Model& model) {
  std::int64_t expected = 0;
  for (const TrainableParameter& parameter : model.trainable().layout)
    expected += static_cast<std::int64_t>(checked_numel(parameter.shape).value());
  ModelCounts counts;
  for (const ParameterInfo& parameter : model.parameters()) {
    const auto count = static_cast<std::int64_t>(checked_numel(parameter.shape).value());
    counts.total += count;
    if (parameter.is_trainable) counts.trainable += count;
  }
  if (expected == 0)
    throw Error(ErrorKind::incompatible, "nothing to train: 0 trainable parameters")
        .with_hint("check --target-modules and --modules-to-save");
  if (counts.trainable != expected)
    throw Error(ErrorKind::internal, "the model reports " + std::to_string(counts.trainable) +
                                         " trainable parameters, the optimizer holds " +
                                         std::to_string(expected));
  return counts;
}

TrainRun make_run_record(RunSetup& setup, int threads) {
  TrainRun run;
  run.path = setup.options.run_dir;
  run.tool_version = setup.options.tool_version;
  run.base_source = setup.options.base_source;
  run.base_root = setup.guard->lock().root;
  run.data = recorded_files(setup.data.examples());
  if (setup.eval) run.eval_data = recorded_files(setup.eval->examples());
  run.initial_adapter = setup.continued;
  run.total_steps = setup.plan.total_steps;
  run.threads = threads;
  run.config = settings_to_json(setup.options);
  run.adapter_config = to_json(setup.config);
  return run;
}

}  // namespace lora::engine
