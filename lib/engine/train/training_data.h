// The data sets of a run, read with the base's tokenizer and checked against the base.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/train/data_rows.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/checkpoint/train_run.h"
#include "lora/engine.h"

namespace lora::engine {

/// Reads `files` for the base of `options` and packs them where it says so. Notes and cuts are
/// logged. Throws what load_dataset throws, Error(incompatible) when the base cannot take this kind
/// of data or its shape, and Error(usage) when this kind cannot be packed.
DataRows load_training_data(const TrainOptions& options,
                            const std::vector<std::filesystem::path>& files, const Sinks& sinks);

/// Paths and digests for run.json.
std::vector<RecordedFile> recorded_files(const Dataset& data);

/// Throws Error(incompatible) naming the files of `actual` whose bytes differ from the recorded.
void require_same_files(const std::vector<RecordedFile>& recorded, const Dataset& actual,
                        const std::filesystem::path& run_dir);

}  // namespace lora::engine
