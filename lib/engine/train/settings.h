// The settings of a run: checked, written into run.json, and taken from there by --resume.
#pragma once

#include "lora/checkpoint/train_run.h"
#include "lora/engine.h"

namespace lora::engine {

/// Throws Error(usage) for the first value that no run can have (a batch size of 0, a negative
/// learning rate, an unknown schedule or initialisation, ...), naming the flag.
void check_settings(const TrainOptions& options);

/// Settings by long flag name with underscores, as run.json's `config` holds them.
JsonObject settings_to_json(const TrainOptions& options);

/// The options of a resumed run: those of run.json, except the run directory, what only concerns
/// this process, and steps / epochs where given. Throws Error(usage) listing the flags in
/// `options.given` whose values differ from the recorded ones, and Error(malformed) for a run.json
/// whose settings are missing or of another type.
TrainOptions resumed_options(const TrainOptions& options, const TrainRun& run);

}  // namespace lora::engine
