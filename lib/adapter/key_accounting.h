// Which keys of an adapter file its configuration explains.
#pragma once

#include <set>
#include <string>

#include "lora/adapter/config.h"
#include "lora/adapter/keys.h"

namespace lora {

/// True when PEFT itself would have written a key of role saved, base_layer or original for this
/// configuration: part of modules_to_save, a bias that `bias` asks for, or an embedding matrix
/// (save_embedding_layers). `lora_paths` are the modules the file has LoRA tensors for.
bool is_explained(const ParsedKey& key, const AdapterConfig& config,
                  const std::set<std::string>& lora_paths);

}  // namespace lora
