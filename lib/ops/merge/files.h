// Which file of a merged checkpoint holds which tensor.
#pragma once

#include "lora/checkpoint/checkpoint.h"
#include "ops/merge/layout.h"

namespace lora::merging {

/// Fills files, index_name and index_metadata of `layout`, whose form is complete. Files, their
/// tensors and the container are the base's; a GGUF base becomes one safetensors file, and so does
/// a torch file where `as_safetensors` says so.
void lay_out_files(const Checkpoint& base, bool as_safetensors, Layout& layout);

}  // namespace lora::merging
