#include "ops/base_identity.h"

#include <system_error>

namespace lora {
namespace {

std::optional<BaseLock> lock_beside(const Checkpoint& base) {
  if (base.directory.empty()) return std::nullopt;
  const auto path = base.directory / kBaseLockName;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return read_base_lock(path);
}

/// The base reduced to the tensors that the manifest names; mappings stay for dropping pages.
Checkpoint targeted_part(const Checkpoint& base, const Manifest& manifest) {
  Checkpoint part;
  part.mappings = base.mappings;
  for (const auto& [name, digest] : manifest.base_tensors) {
    const auto found = base.tensors.find(name);
    if (found != base.tensors.end()) part.tensors.insert(*found);
  }
  return part;
}

bool has_form_of(const Tensor& tensor, const LockedTensor& locked) {
  return locked.dtype == to_string(tensor.dtype) && locked.shape == tensor.shape;
}

std::vector<std::string> contradictions(const BaseLock& lock, const Checkpoint& base,
                                        const std::map<std::string, Digest>& hashed) {
  std::vector<std::string> names, missing, added;
  for (const auto& [name, locked] : lock.tensors) {
    const auto tensor = base.tensors.find(name);
    const auto digest = hashed.find(name);
    if (tensor == base.tensors.end()) {
      missing.push_back(name + " (missing)");
    } else if (!has_form_of(tensor->second, locked) ||
               (digest != hashed.end() && digest->second != locked.digest)) {
      names.push_back(name);
    }
  }
  for (const auto& [name, tensor] : base.tensors)
    if (!lock.tensors.contains(name)) added.push_back(name + " (added)");
  names.insert(names.end(), missing.begin(), missing.end());
  names.insert(names.end(), added.begin(), added.end());
  return names;
}

}  // namespace

BaseIdentity identify_base(const Checkpoint& base, const std::optional<Manifest>& manifest,
                           bool full, int threads, const Sinks& sinks) {
  const std::optional<BaseLock> lock = lock_beside(base);
  const bool has_record = manifest && manifest->base_root;
  BaseIdentity identity;
  identity.has_lock = lock.has_value();
  identity.is_whole = full || (has_record && !lock);
  if (identity.is_whole || has_record) {
    const BaseLock now = compute_base_lock(
        identity.is_whole ? base : targeted_part(base, *manifest), threads, sinks);
    for (const auto& [name, tensor] : now.tensors) identity.hashed[name] = tensor.digest;
    if (identity.is_whole) identity.root = now.root;
  }
  if (lock) identity.against_lock = contradictions(*lock, base, identity.hashed);
  if (lock && !identity.is_whole && identity.against_lock.empty()) identity.root = lock->root;
  return identity;
}

}  // namespace lora
