// Everything a run needs before its first step, gathered and checked.
#pragma once

#include <memory>
#include <optional>

#include "engine/model.h"
#include "engine/train/added_tokens.h"
#include "engine/train/base_guard.h"
#include "engine/train/plan.h"
#include "lora/adapter/adapter.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/checkpoint/train_run.h"

namespace lora::engine {

struct RunSetup {
  TrainOptions options;  ///< effective: with --resume those of run.json
  std::optional<TrainRun> resumed;
  std::filesystem::path checkpoint;  ///< resume from here; empty: from the first step
  std::unique_ptr<BaseGuard> guard;
  TokenizerFiles tokenizer;               ///< of the base's folder
  AdapterConfig config;                   ///< of the adapter being trained, targets resolved
  Adapter initial;                        ///< new, continued, or that of the checkpoint
  AddedTokens added;                      ///< what --add-tokens adds to the base
  TensorMap first_factors;                ///< what its initialisation took out of the base
  JsonArray history;                      ///< of the adapter that is continued
  std::optional<RecordedFile> continued;  ///< its weights file
  DataRows data;
  std::optional<DataRows> eval;
  TrainPlan plan;
};

/// Reads and checks; writes nothing. Throws Error of any kind.
RunSetup prepare_run(const TrainOptions& options, const Sinks& sinks);

/// Builds the model and counts its parameters. Throws Error(incompatible) when none is trainable
/// and Error(internal) when one is that should be frozen.
struct ModelCounts {
  std::int64_t trainable = 0;
  std::int64_t total = 0;
};
ModelCounts count_parameters(Model& model);

/// run.json of this run.
TrainRun make_run_record(RunSetup& setup, int threads);

}  // namespace lora::engine
