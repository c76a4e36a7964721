// Adapter directories as a run writes them: PEFT's two files, lora_manifest.json and, for the
// result, probe.safetensors.
#pragma once

#include <optional>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/atomic_write.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/tokenizer_files.h"

namespace lora::engine {

/// What the manifest says about where the adapter came from. `history` ends with the entry of this
/// run and holds neither paths nor times, so equal runs give equal bytes.
struct Provenance {
  const BaseLock* base = nullptr;  ///< required
  TokenizerFiles tokenizer;        ///< of the base's folder
  JsonArray history;
};

/// Writes the adapter and its manifest into a directory under construction.
void write_trained_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                           const TensorMap& tensors, const Provenance& provenance, int threads);

/// Digests of the base tensors an adapter changes: the weight of each targeted module and every
/// replaced parameter, under the names the lock uses.
std::map<std::string, Digest> touched_base_tensors(const Adapter& adapter, const BaseLock& base);

}  // namespace lora::engine
