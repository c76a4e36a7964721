#include "ops/merge/identity.h"

#include <algorithm>
#include <system_error>

#include "lora/base/tensor_digest.h"
#include "lora/ops/fit.h"

namespace lora::merging {

void BaseIdentity::expect(const std::vector<const Adapter*>& adapters) {
  for (const Adapter* adapter : adapters)
    if (auto manifest = read_manifest(adapter->directory()))
      expected_.push_back({adapter, std::move(*manifest)});
}

void BaseIdentity::look(int threads, const Sinks& sinks) {
  std::error_code ignored;
  const bool has_lock =
      !base_.directory.empty() && std::filesystem::exists(base_.directory / kBaseLockName, ignored);
  const bool is_other = std::any_of(expected_.begin(), expected_.end(), [&](const Expected& one) {
    return !has_first_tensor(one.manifest);
  });
  // Another base is worth the time that naming its tensors takes.
  if (has_lock || is_other) settle(threads, sinks);
}

void BaseIdentity::settle(int threads, const Sinks& sinks) { take(lock_of(base_, threads, sinks)); }

void BaseIdentity::take(const BaseLock& lock) {
  root_ = lock.root;
  for (const Expected& one : expected_)
    require_recorded_base(one.manifest, lock, one.adapter->path.string(), base_.path.string());
}

bool BaseIdentity::has_first_tensor(const Manifest& manifest) const {
  const std::pair<const std::string, Digest>* smallest = nullptr;
  const auto size_of = [&](const std::string& name) { return base_.tensors.at(name).bytes.size(); };
  for (const auto& entry : manifest.base_tensors)
    if (base_.tensors.contains(entry.first) &&
        (smallest == nullptr || size_of(entry.first) < size_of(smallest->first)))
      smallest = &entry;
  return smallest == nullptr ||
         tensor_digest(smallest->first, base_.tensors.at(smallest->first)) == smallest->second;
}

}  // namespace lora::merging
