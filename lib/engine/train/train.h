// A whole training run: checks, model, loop, result.
#pragma once

#include <functional>
#include <memory>

#include "engine/model.h"
#include "lora/base/file_system.h"

namespace lora::engine {

/// What a run takes from its surroundings, so that tests can put others there.
struct TrainSurroundings {
  std::function<std::unique_ptr<Model>(const ModelOptions&)> make_model;  ///< required
  FileSystem* file_system = nullptr;                                      ///< null: the real one
};

/// See Engine::train. Deterministic at equal thread count; a run stopped at any step and resumed
/// gives the bytes of one that was not, provided the number of steps is the same (with more steps
/// than recorded, the schedule follows the new number from the resumed step on).
/// Throws Error of any kind; the run directory then holds the last complete checkpoint or, before
/// the first step, nothing.
TrainReport run_training(const TrainOptions& options, const TrainSurroundings& surroundings,
                         const std::function<void(const TrainEvent&)>& on_event,
                         const Sinks& sinks);

}  // namespace lora::engine
