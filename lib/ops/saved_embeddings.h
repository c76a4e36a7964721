// Embedding matrices that PEFT saves of its own accord.
#pragma once

#include <string_view>

#include "lora/adapter/config.h"

namespace lora {

/// A path that ends as embeddings and heads do in transformers.
bool has_embedding_name(std::string_view module_path);

/// Whether save_pretrained(save_embedding_layers="auto") adds the embeddings of the base, whatever
/// their values: target_modules names one of them.
bool saves_embeddings(const AdapterConfig& config);

}  // namespace lora
