#include "engine/engine_impl.h"

// The one exported symbol of the shared object (kEngineSymbol); null when the caller was built for
// another interface.
extern "C" __attribute__((visibility("default"))) lora::Engine* lora_engine_open(int abi) {
  if (abi != lora::kEngineAbi) return nullptr;
  static lora::engine::EngineImpl engine;
  return &engine;
}
