// Adapters that bring more tokens than their base has.
#pragma once

#include "lora/engine.h"

namespace lora::engine {

/// With a base that has the rows for trainable tokens behind the end of its tables, where the
/// adapters bring every one of these rows (in the embedding, and in a head of its own): what
/// resize_token_embeddings makes of the base before PEFT loads such an adapter. The same options
/// otherwise, and it is for check_adapters to say what does not fit.
ModelOptions with_rows_for_tokens(const ModelOptions& options);

}  // namespace lora::engine
