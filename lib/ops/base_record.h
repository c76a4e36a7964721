// What a manifest says about the base of an adapter.
#pragma once

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/checkpoint/base_lock.h"

namespace lora {

/// Sets root, tokenizer, chat template and the digests of the weights that LoRA modules change.
void record_base(Manifest& manifest, const Adapter& adapter, const Checkpoint& base,
                 const BaseLock& lock);

}  // namespace lora
