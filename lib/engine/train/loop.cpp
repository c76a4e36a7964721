#include "engine/train/loop.h"

#include <ATen/ops/isfinite.h>

#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/train/batches.h"
#include "engine/train/finite_base.h"
#include "engine/train/process_memory.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

using Clock = std::chrono::steady_clock;

// One optimizer step's worth of data, gathered before any gradient: the loss is divided by the
// positions of all micro-batches together.
struct StepData {
  std::vector<std::vector<std::size_t>> rows;
  std::vector<Batch> batches;
  std::int64_t supervised = 0;
  std::int64_t tokens = 0;
};

StepData gather(BatchPlan& plan, const DataRows& data, std::int64_t step, std::int64_t grad_accum) {
  StepData gathered;
  for (std::int64_t micro = 0; micro < grad_accum; ++micro) {
    gathered.rows.push_back(plan.batch(static_cast<std::uint64_t>(step * grad_accum + micro)));
    gathered.batches.push_back(data.batch(gathered.rows.back()));
    gathered.supervised += supervised_count(gathered.batches.back());
    gathered.tokens += token_count(gathered.batches.back());
  }
  return gathered;
}

bool all_finite(const at::Tensor& values) { return at::isfinite(values).all().item<bool>(); }

}  // namespace

LossSum evaluate_model(Model& model, const DataRows& data, std::int64_t batch_size,
                       const Sinks& sinks) {
  LossSum total;
  const auto size = static_cast<std::size_t>(batch_size);
  for (std::size_t first = 0; first < data.size(); first += size) {
    sinks.throw_if_cancelled();
    std::vector<std::size_t> rows(std::min(size, data.size() - first));
    std::iota(rows.begin(), rows.end(), first);
    const LossSum part = model.loss(data.batch(rows));
    total.sum += part.sum;
    total.count += part.count;
  }
  return total;
}

TrainingLoop::TrainingLoop(LoopParts parts, RunState& state)
    : parts_(std::move(parts)),
      state_(state),
      batches_(plan_batches(parts_.options, parts_.data)),
      saved_step_(state_.step) {}

StopReason TrainingLoop::run() {
  const std::int64_t total = parts_.plan.total_steps;
  try {
    // An interruption can fall between a step and its evaluation.
    if (evaluation_is_due()) evaluate();
    while (state_.step < total && !state_.stopped_early) {
      parts_.sinks.throw_if_cancelled();
      step();
      if (evaluation_is_due()) evaluate();
      if (state_.step == total || state_.stopped_early)
        save();
      else if (state_.step % parts_.plan.save_every == 0)
        try_to_save();
    }
    // After the checkpoint on purpose: this evaluation belongs to the end of the run, not to the
    // step, and a run that goes on from here with more steps must not have seen it.
    if (parts_.eval != nullptr && state_.evaluated_step != state_.step) evaluate();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::interrupted) throw;
    save();
    return StopReason::interrupted;
  }
  return state_.stopped_early ? StopReason::early_stop : StopReason::done;
}

void TrainingLoop::step() {
  const TrainOptions& options = parts_.options;
  const auto started = Clock::now();
  const StepData data = gather(batches_, parts_.data, state_.step, options.grad_accum);
  if (data.supervised == 0)
    throw Error(ErrorKind::incompatible,
                "step " + std::to_string(state_.step + 1) +
                    " holds no position with a loss: " + parts_.data.origins_of(data.rows.front()));
  FlatParameters& parameters = parts_.model.trainable();
  parameters.gradients.zero_();
  double sum = 0;
  std::vector<std::size_t> all;
  for (std::size_t micro = 0; micro < data.batches.size(); ++micro) {
    const LossSum part = parts_.model.loss_and_gradients(
        data.batches[micro], 1.0 / static_cast<double>(data.supervised),
        {options.seed,
         state_.step,
         static_cast<std::int64_t>(micro),
         {options.label_smoothing, options.z_loss}});
    if (!std::isfinite(part.sum))
      stop_non_finite("loss", part.sum, "micro-batch " + std::to_string(micro + 1),
                      parts_.data.origins_of(data.rows[micro]));
    sum += part.sum;
    all.insert(all.end(), data.rows[micro].begin(), data.rows[micro].end());
  }
  const double norm = clip_by_global_norm(parameters.gradients, options.max_grad_norm);
  if (!std::isfinite(norm))
    stop_non_finite("gradient norm", norm, std::to_string(data.batches.size()) + " micro-batches",
                    parts_.data.origins_of(all));

  const std::int64_t number = state_.step + 1;
  const double rate = parts_.plan.schedule.rate(number);
  parts_.optimizer.update(parameters.values, parameters.gradients, rate, number);

  state_.last_loss = sum / static_cast<double>(data.supervised);
  if (state_.step == 0) state_.first_loss = state_.last_loss;
  state_.step = number;
  state_.tokens += data.tokens;
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  seconds_ += seconds;
  session_tokens_ += static_cast<double>(data.tokens);

  const StepMetrics line{number,
                         state_.last_loss,
                         rate,
                         norm,
                         state_.tokens,
                         seconds > 0 ? static_cast<double>(data.tokens) / seconds : 0,
                         process_memory().resident_bytes};
  parts_.metrics.append(line);
  if (parts_.on_event)
    parts_.on_event({line.step, parts_.plan.total_steps, line.loss, line.lr, line.grad_norm,
                     line.tokens_per_second, line.tokens, line.rss_bytes, std::nullopt});
}

bool TrainingLoop::evaluation_is_due() const {
  return parts_.eval != nullptr && parts_.options.eval_every > 0 && state_.step > 0 &&
         state_.step % parts_.options.eval_every == 0 && state_.evaluated_step != state_.step;
}

void TrainingLoop::evaluate() {
  const LossSum total =
      evaluate_model(parts_.model, *parts_.eval, parts_.options.batch_size, parts_.sinks);
  const double loss = total.sum / static_cast<double>(total.count);
  state_.eval_loss = loss;
  state_.evaluated_step = state_.step;
  if (!state_.best_eval_loss || loss < *state_.best_eval_loss) {
    state_.best_eval_loss = loss;
    state_.best_step = state_.step;
    state_.evals_without_gain = 0;
    if (parts_.options.early_stop > 0) state_.best_values = parts_.model.trainable().values.clone();
  } else {
    ++state_.evals_without_gain;
  }
  if (parts_.options.early_stop > 0 && state_.evals_without_gain >= parts_.options.early_stop &&
      state_.step < parts_.plan.total_steps)
    state_.stopped_early = true;
  parts_.metrics.append(EvalMetrics{state_.step, loss, total.count});
  if (parts_.on_event) {
    TrainEvent event;
    event.step = state_.step;
    event.total_steps = parts_.plan.total_steps;
    event.tokens = total.count;
    event.eval_loss = loss;
    parts_.on_event(event);
  }
}

void TrainingLoop::save() {
  if (saved_step_ == state_.step && state_.step > 0) return;
  parts_.metrics.sync();
  parts_.save(state_);
  saved_step_ = state_.step;
}

// The disk may be full for a while: hours of training are worth more than this checkpoint.
bool TrainingLoop::try_to_save() {
  try {
    save();
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::output) throw;
    parts_.sinks.warning("the checkpoint of step " + std::to_string(state_.step) +
                         " was not written (" + error.what() + "); training goes on, and " +
                         (saved_step_ > 0
                              ? "the last good checkpoint is of step " + std::to_string(saved_step_)
                              : std::string("there is no checkpoint yet")));
    return false;
  }
}

void TrainingLoop::stop_non_finite(const std::string& what, double value,
                                   const std::string& batches, const std::string& lines) {
  require_finite_base(*parts_.options.base, what, state_.step + 1);
  std::string hint = "lower --lr, raise --warmup or look at these lines";
  // The parameters are still those of the step before: nothing of the run is lost.
  if (state_.step > 0 && all_finite(parts_.model.trainable().values) && try_to_save()) {
    hint += "; the last good checkpoint is of step " + std::to_string(state_.step);
  }
  throw Error(ErrorKind::incompatible, what + " is " + dump_json(value, kCompactStyle) +
                                           " at step " + std::to_string(state_.step + 1) + " (" +
                                           batches + ": " + lines + "), expected a finite number")
      .with_hint(hint);
}

}  // namespace lora::engine
