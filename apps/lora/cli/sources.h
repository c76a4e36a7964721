// From what a person typed to what operations take: adapters, run directories, bases.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "cli/context.h"
#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"
#include "lora/ops/adapter_set.h"

namespace lora::cli {

/// The adapter a path stands for. A run directory means its finished adapter or newest checkpoint,
/// which is said aloud; anything else is returned as it is.
std::filesystem::path resolve_adapter(const std::string& path, Context& context);

/// ADAPTER or ADAPTER@WEIGHT.
struct WeightedPath {
  std::string path;
  double weight = 1;
};

/// Splits at the last "@" when a number follows it and the path before it exists or the whole does
/// not. Throws Error(usage) for a weight that is not finite.
WeightedPath split_weight(const std::string& argument);

/// Says aloud what a weight other than 1 does not reach: saved modules, biases, token rows.
void note_taken_whole(const std::string& path, const Adapter& adapter, double weight,
                      Context& context);

/// Opens ADAPTER or ADAPTER@WEIGHT, with that note.
WeightedAdapter open_weighted(const std::string& argument,
                              const std::optional<std::string>& adapter_config, Context& context);

/// Reads --adapter-config when it was given.
std::optional<AdapterConfig> adapter_config_from(const std::optional<std::string>& file);

/// Opens --base, says its notes aloud; `config_required` when architecture is needed.
Checkpoint open_base(const std::string& source, const OpenCheckpointOptions& options,
                     Context& context);

/// --base, or the base that the adapter names when that is an existing local path or a cached id
/// (said aloud). Throws Error(usage) when there is neither.
Checkpoint open_base_for(const std::optional<std::string>& source, const AdapterConfig& config,
                         const OpenCheckpointOptions& options, Context& context);

/// The dtype that a --dtype choice ("bf16") names.
DType float_dtype(const std::string& choice);

/// What a --base-dtype choice ("nf4") names.
BaseDtype base_dtype_named(const std::string& choice);

/// PEFT's task_type for a --task choice ("causal-lm").
std::string peft_task(const std::string& choice);

/// Flags of an inferred mlp, shared by the verbs that take a bare state dict as base.
void add_base_options(OptionSet& options, OpenCheckpointOptions& target);

inline constexpr const char* kBaseHelp =
    "base checkpoint: directory, .safetensors, .pth, .pt or .bin file, or a cached Hugging Face id";

}  // namespace lora::cli
