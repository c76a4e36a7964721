// Identity of an adapter: what it is made of and how it is applied, whatever the file looks like.
#pragma once

#include <map>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/sha256.h"

namespace lora {

/// Over the tensors, the strength of each site, the token rows' indices and what the configuration
/// says about layouts. It does not depend on the base, on paths, or on names of wrappers in keys.
/// Hashes on `threads` threads (0: all).
Digest adapter_digest(const Adapter& adapter, int threads);

/// The same from records of the tensors that were made before.
Digest adapter_digest(const Adapter& adapter, const std::map<std::string, TensorRecord>& records);

}  // namespace lora
