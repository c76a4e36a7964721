// A plain chain of Linear layers with one activation between them.
#pragma once

#include <memory>

#include "engine/model.h"

namespace lora::engine {

/// Losses: cross entropy for `y` I64 [rows] (on what the final activation gives, as
/// torch.nn.CrossEntropyLoss would), mean squared error for `y` F32 [rows, outputs].
std::unique_ptr<Model> make_mlp(const ModelOptions& options);

}  // namespace lora::engine
