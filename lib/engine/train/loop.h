// The steps of a run: batches in, updates, metrics, evaluations and checkpoints out.
#pragma once

#include <functional>
#include <string>

#include "engine/model.h"
#include "engine/train/metrics.h"
#include "engine/train/optimizer.h"
#include "engine/train/plan.h"
#include "engine/train/run_state.h"

namespace lora::engine {

/// What the loop works with; everything outlives it.
struct LoopParts {
  const TrainOptions& options;
  const TrainPlan& plan;
  Model& model;
  AdamW& optimizer;
  const DataRows& data;
  const DataRows* eval = nullptr;
  MetricsFile& metrics;
  /// Publishes a checkpoint of the model, the optimizer and this state.
  std::function<void(const RunState&)> save;
  std::function<void(const TrainEvent&)> on_event;  ///< may be empty
  const Sinks& sinks;
};

enum class StopReason { done, interrupted, early_stop };

class TrainingLoop {
 public:
  /// `state` is where the run stands; it moves on as the loop does.
  TrainingLoop(LoopParts parts, RunState& state);

  /// Runs until the last step, an interruption (a checkpoint is saved first) or early stopping. A
  /// checkpoint on the way that cannot be written is a warning; the one at the end is
  /// Error(output). Throws Error(incompatible) on a loss or gradient that is not finite, naming
  /// step, batch and data lines; a checkpoint of the last good step is there then.
  StopReason run();

  /// Tokens a second over the steps of this process, checkpoints and evaluations left out; 0 before
  /// the first step.
  double tokens_per_second() const { return seconds_ > 0 ? session_tokens_ / seconds_ : 0; }

 private:
  void step();
  void evaluate();
  bool evaluation_is_due() const;
  void save();
  bool try_to_save();
  [[noreturn]] void stop_non_finite(const std::string& what, double value,
                                    const std::string& batches, const std::string& lines);

  LoopParts parts_;
  RunState& state_;
  BatchPlan batches_;
  std::int64_t saved_step_;  ///< of the newest checkpoint; 0: none yet
  double session_tokens_ = 0;
  double seconds_ = 0;
};

/// Mean loss over a data set in its own order, weighted by supervised positions.
LossSum evaluate_model(Model& model, const DataRows& data, std::int64_t batch_size,
                       const Sinks& sinks);

}  // namespace lora::engine
