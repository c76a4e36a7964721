#include "engine/train/train.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "engine/base_change.h"
#include "engine/border.h"
#include "engine/probe.h"
#include "engine/train/checkpoint_state.h"
#include "engine/train/loop.h"
#include "engine/train/memory_estimate.h"
#include "engine/train/plain_result.h"
#include "engine/train/process_memory.h"
#include "engine/train/publish.h"
#include "engine/train/run_directory.h"
#include "engine/train/setup.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

ModelOptions native_model(const RunSetup& setup, const Adapter& adapter) {
  ModelOptions options;
  options.base = setup.options.base;
  options.adapters = {&adapter};
  options.compute = setup.options.compute;
  options.device = setup.options.device;
  if (!setup.first_factors.empty()) options.first_factors = &setup.first_factors;
  return options;
}

ModelOptions trained_model(const RunSetup& setup) {
  ModelOptions options = native_model(setup, setup.initial);
  options.base_dtype = setup.options.base_dtype;
  options.trainable = true;
  return options;
}

MemoryEstimate estimate_of(const RunSetup& setup) {
  const auto rows = std::min<std::int64_t>(setup.options.batch_size,
                                           static_cast<std::int64_t>(setup.data.size()));
  return estimate_memory(trained_model(setup), rows, longest_row(setup.data),
                         setup.options.layer_checkpointing);
}

void warn_about_memory(const MemoryVerdict& verdict, const TrainOptions& options,
                       const Sinks& sinks) {
  const std::string warning = require_memory(verdict, options.any_memory);
  if (!warning.empty()) sinks.warning(warning);
}

RunDirectory::Use use_of(const TrainOptions& options) {
  if (options.resume) return RunDirectory::Use::resume;
  return options.force ? RunDirectory::Use::replace : RunDirectory::Use::create;
}

std::optional<PackingReport> packing_of(const DataRows& data) {
  if (!data.is_packed()) return std::nullopt;
  return PackingReport{static_cast<std::int64_t>(data.examples().size()),
                       static_cast<std::int64_t>(data.size()), data.capacity(), data.fill()};
}

// What the run has written and will write, from the first byte in its directory to the result.
class Run {
 public:
  Run(RunSetup setup, const TrainSurroundings& surroundings, RunDirectory& directory)
      : setup_(std::move(setup)), surroundings_(surroundings), directory_(directory) {
    write_options_.force = true;
    write_options_.file_system = surroundings.file_system;
  }

  TrainReport train(const std::function<void(const TrainEvent&)>& on_event, const Sinks& sinks) {
    memory_ = compare_memory(estimate_of(setup_), find_available_memory());
    warn_about_memory(memory_, setup_.options, sinks);
    try {
      return train_in(on_event, sinks);
    } catch (...) {
      const Error error = current_exception_as_error("training");
      if (!error.message().starts_with("out of memory")) throw;
      throw out_of_memory(memory_, error.message());
    }
  }

 private:
  TrainReport train_in(const std::function<void(const TrainEvent&)>& on_event, const Sinks& sinks) {
    model_ = surroundings_.make_model(trained_model(setup_));
    const ModelCounts counts = count_parameters(*model_);
    model_->set_layer_checkpointing(setup_.options.layer_checkpointing);
    AdamW optimizer(model_->trainable().values, {setup_.options.beta1, setup_.options.beta2,
                                                 setup_.options.eps, setup_.options.weight_decay});
    RunState state;
    if (!setup_.checkpoint.empty())
      state = restore_state(setup_.checkpoint, model_->trainable(), optimizer);
    setup_.guard->lock();
    sinks.throw_if_cancelled();
    begin(state, sinks);

    MetricsFile metrics(directory_.metrics());
    TrainingLoop loop(
        {setup_.options, setup_.plan, *model_, optimizer, setup_.data,
         setup_.eval ? &*setup_.eval : nullptr, metrics,
         [&](const RunState& at) { save_checkpoint(at, optimizer); }, on_event, sinks},
        state);
    const StopReason reason = loop.run();
    metrics.sync();
    setup_.guard->require_unchanged();

    TrainReport report;
    report.trainable_parameters = counts.trainable;
    report.total_parameters = counts.total;
    report.tokens_per_second = loop.tokens_per_second();
    if (reason == StopReason::interrupted) {
      report.stopped_because = "interrupted";
      report.adapter = checkpoint_path(directory_.path(), state.step);
    } else {
      if (reason == StopReason::early_stop) report.stopped_because = "early stop";
      write_result(state, sinks);
      report.adapter = directory_.adapter();
    }
    report.packing = packing_of(setup_.data);
    report.steps = state.step;
    report.tokens = state.tokens;
    report.first_loss = state.first_loss;
    report.last_loss = state.last_loss;
    report.eval_loss = state.eval_loss;
    report.peak_rss_bytes = process_memory().peak_resident_bytes;
    return report;
  }

  void begin(const RunState& state, const Sinks& sinks) {
    const int threads = at::get_num_threads();
    const std::filesystem::path& path = directory_.path();
    if (setup_.resumed) {
      if (setup_.resumed->threads != threads)
        sinks.warning("the run was started with " + std::to_string(setup_.resumed->threads) +
                      " threads and goes on with " + std::to_string(threads) +
                      ": the last bits of its numbers may differ");
      cut_metrics(directory_.metrics(), state.step, state.evaluated_step);
      if (state.step < setup_.plan.total_steps && !state.stopped_early)
        discard_directory(directory_.adapter(), write_options_.fs());
      directory_.prune(setup_.options.keep);  // a kill may have come between writing and pruning
      sinks.info("continuing at step " + std::to_string(state.step));
    } else {
      directory_.clear();
      write_file_atomically(path / kBaseLockName, dump_base_lock(setup_.guard->lock()),
                            write_options_);
    }
    const TrainRun record =
        make_run_record(setup_, setup_.resumed ? setup_.resumed->threads : threads);
    write_file_atomically(path / kRunRecordName, dump_json(to_json(record), kPrettyStyle) + "\n",
                          write_options_);
    if (setup_.plan.total_steps == 1 && setup_.plan.schedule.rate(1) == 0)
      sinks.warning(
          "the only step is a warm-up step with a learning rate of 0, so nothing will be "
          "learned: pass --warmup 0");
  }

  Provenance provenance(const RunState& state) {
    const TrainOptions& options = setup_.options;
    JsonArray data;
    for (const DataFile& file : setup_.data.examples().files) data.push_back(file.digest.hex());
    Provenance result{&setup_.guard->lock(), setup_.tokenizer, setup_.history};
    result.history.push_back(JsonObject{{"operation", "train"},
                                        {"steps", state.step},
                                        {"tokens", state.tokens},
                                        {"seed", options.seed},
                                        {"batch_size", options.batch_size},
                                        {"grad_accum", options.grad_accum},
                                        {"lr", options.lr},
                                        {"schedule", options.schedule},
                                        {"data_sha256", std::move(data)}});
    if (options.base_dtype != BaseDtype::native)
      (*result.history.back().as_object())["base_dtype"] =
          std::string(to_string(options.base_dtype));
    return result;
  }

  void save_checkpoint(const RunState& state, AdamW& optimizer) {
    const FlatParameters& parameters = model_->trainable();
    AtomicDirectory staged(checkpoint_path(directory_.path(), state.step), write_options_);
    write_trained_adapter(staged, setup_.config, saved_tensors(parameters.values, parameters),
                          provenance(state), setup_.options.threads);
    write_state(staged, parameters, optimizer, state, setup_.first_factors);
    staged.commit();
    directory_.prune(setup_.options.keep);
  }

  // The probe comes from a model loaded as any later reader would load it, not from the one that
  // was trained: saved modules are rounded to their dtype on disk, and the base is native.
  void write_result(const RunState& state, const Sinks& sinks) {
    const FlatParameters& parameters = model_->trainable();
    const bool has_best = setup_.options.early_stop > 0 && state.best_values.defined();
    TensorMap tensors = saved_tensors(has_best ? state.best_values : parameters.values, parameters);
    Provenance origin = provenance(state);
    if (has_best) (*origin.history.back().as_object())["best_step"] = state.best_step;
    model_.reset();

    AdapterConfig config = setup_.config;
    if (is_random_change(config)) {
      make_plain(config, tensors, setup_.first_factors);
      setup_.first_factors.clear();
    }
    AtomicDirectory staged(directory_.adapter(), write_options_);
    write_trained_adapter(staged, config, tensors, origin, setup_.options.threads);
    write_tokenizer(staged, setup_.added, setup_.options.base->directory);
    const Adapter adapter = make_adapter(config, tensors, {});
    const ModelOptions options = native_model(setup_, adapter);
    try {
      write_probe(staged, probe_model(*surroundings_.make_model(options), options));
    } catch (...) {
      if (setup_.options.base_dtype == BaseDtype::native) throw;
      // Memory that holds the base in few bits may not hold it natively.
      const Error error = current_exception_as_error("recording outputs with the native base");
      if (error.kind() != ErrorKind::resources) throw;
      sinks.warning("the adapter has no recorded outputs: " + std::string(error.what()));
    }
    staged.commit();
  }

  RunSetup setup_;
  const TrainSurroundings& surroundings_;
  RunDirectory& directory_;
  WriteOptions write_options_;
  std::unique_ptr<Model> model_;
  MemoryVerdict memory_;
};

TrainReport dry_run(const RunSetup& setup, const TrainSurroundings& surroundings,
                    const Sinks& sinks) {
  const MemoryEstimate memory = estimate_of(setup);
  warn_about_memory(compare_memory(memory, find_available_memory()), setup.options, sinks);
  const auto model = surroundings.make_model(trained_model(setup));
  const ModelCounts counts = count_parameters(*model);
  TrainReport report;
  report.trainable_parameters = counts.trainable;
  report.total_parameters = counts.total;
  report.adapter = setup.options.run_dir / "adapter";
  report.plan =
      describe_plan(setup.options, setup.plan, setup.data, setup.eval ? &*setup.eval : nullptr,
                    counts.trainable, counts.total, memory.total());
  return report;
}

}  // namespace

TrainReport run_training(const TrainOptions& options, const TrainSurroundings& surroundings,
                         const std::function<void(const TrainEvent&)>& on_event,
                         const Sinks& sinks) {
  if (options.dry_run) {
    check_run_directory(options.run_dir, use_of(options));
    return dry_run(prepare_run(options, sinks), surroundings, sinks);
  }
  FileSystem& fs =
      surroundings.file_system != nullptr ? *surroundings.file_system : real_file_system();
  RunDirectory directory(options.run_dir, use_of(options), fs);
  Run run(prepare_run(options, sinks), surroundings, directory);
  return run.train(on_event, sinks);
}

}  // namespace lora::engine
