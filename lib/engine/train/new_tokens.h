// The rows of trainable tokens before their first step.
#pragma once

#include "lora/adapter/adapter.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

/// Adds, for every module that trainable_token_indices names, the rows of the base at its indices.
/// A list means the input embedding. A head tied to it gets none of its own: it shares them. Throws
/// Error(usage) for indices that the table does not have or that are given twice, and for a table
/// that the configuration adapts in another way too.
void add_token_rows(TensorMap& tensors, const AdapterConfig& config, const ResolvedTargets& targets,
                    const Checkpoint& base, Compute compute);

}  // namespace lora::engine
