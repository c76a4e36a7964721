#include "engine/grown_base.h"

#include "lora/adapter/token_indices.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/checkpoint/grow_vocabulary.h"

namespace lora::engine {

ModelOptions with_rows_for_tokens(const ModelOptions& options) {
  std::optional<Checkpoint> larger = grown_for(*options.base, token_indices_of(options.adapters));
  if (!larger) return options;
  ModelOptions grown = options;
  grown.owned_base = std::make_shared<const Checkpoint>(std::move(*larger));
  grown.base = grown.owned_base.get();
  return grown;
}

}  // namespace lora::engine
