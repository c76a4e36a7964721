// Where a run stands after some step, apart from the parameters: everything that a later step, an
// evaluation or the final report depends on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace lora::engine {

struct RunState {
  std::int64_t step = 0;    ///< steps finished
  std::int64_t tokens = 0;  ///< tokens trained on
  double first_loss = 0;
  double last_loss = 0;
  std::optional<double> eval_loss;       ///< of the latest evaluation
  std::optional<double> best_eval_loss;  ///< lowest so far
  std::int64_t best_step = 0;
  std::int64_t evaluated_step = 0;  ///< step of the latest evaluation; 0: none yet
  std::int64_t evals_without_gain = 0;
  bool stopped_early = false;
  /// Parameters of the best evaluation, f32 [n]; defined only where early stopping will need them.
  at::Tensor best_values;
};

}  // namespace lora::engine
