// What ensure_weight_tying writes twice: once for the embedding, once for the head tied to it.
#pragma once

#include "lora/adapter/adapter.h"
#include "lora/adapter/keys.h"

namespace lora {

/// Sets tied_to of sites whose factors are the transposed ones of an embedding. Modules are sorted.
void mark_tied_sites(Adapter& adapter);

/// True for a saved matrix that repeats a replacement under another name, as PEFT writes for the
/// head of a tied embedding in modules_to_save.
bool is_tied_copy(const Adapter& adapter, const ParsedKey& key, const Tensor& tensor);

}  // namespace lora
