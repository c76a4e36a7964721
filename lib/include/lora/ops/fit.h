// Does an adapter fit a base? Strict accounting of every key, and the identity of the base.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/base/sinks.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Everything that does not fit, one line each: missing, unexpected and misshaped keys, parameters
/// the base does not have, damaged pairs. Empty when the adapter fits. The base settles what the
/// adapter alone leaves open (settle_parameters): names, layouts and with them ranks and scalings
/// of sites on bare parameters may change. Throws Error(incompatible) when the configuration
/// selects nothing in the base.
std::vector<std::string> fit_problems(Adapter& adapter, const Checkpoint& base);

/// The same; throws Error(incompatible) that lists the problems (the first ten and how many more).
void require_fit(Adapter& adapter, const Checkpoint& base);

/// True where base.lock.json lies beside the checkpoint.
bool is_locked(const Checkpoint& base);

/// The lock to compare with a record: base.lock.json beside the base where there is one, otherwise
/// computed from the bytes, those of `known` digests excepted.
BaseLock lock_of(const Checkpoint& base, int threads, const Sinks& sinks,
                 const std::map<std::string, Digest>& known = {});

/// Throws Error(incompatible) when the manifest records another base, naming targeted tensors that
/// differ.
void require_recorded_base(const Manifest& manifest, const BaseLock& base,
                           const std::string& adapter, const std::string& base_path);

}  // namespace lora
