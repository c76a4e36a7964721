#include "ops/extract/digests.h"

#include <algorithm>

#include "lora/base/tensor_digest.h"
#include "lora/ops/fit.h"

namespace lora::extraction {

InputDigests::InputDigests(const Checkpoint& base, const Checkpoint& tuned, const Survey& survey)
    : base_{base, !is_locked(base), {}}, tuned_{tuned, !is_locked(tuned), {}} {
  for (const std::string& name : survey.unchanged)
    if (base.find(name)->dtype == tuned.find(name)->dtype) alike_.insert(name);
  std::set<std::string> of_sites;
  for (const Site& site : survey.sites) of_sites.insert(site.base_name);
  for (Input* input : {&base_, &tuned_}) {
    if (!input->is_hashed) continue;
    for (const auto& entry : input->checkpoint.tensors)
      if (!of_sites.contains(entry.first) && !(input == &tuned_ && alike_.contains(entry.first)))
        others_.push_back({input, &entry});
  }
  std::stable_sort(others_.begin(), others_.end(), [](const Other& a, const Other& b) {
    return a.entry->second.bytes.size() > b.entry->second.bytes.size();
  });
}

void InputDigests::hash_other(std::size_t index, const Sinks& sinks) {
  Input& input = *others_[index].input;
  const auto& [name, tensor] = *others_[index].entry;
  add(input, name, tensor_digest(name, tensor, [&](std::span<const std::byte> consumed) {
        sinks.throw_if_cancelled();
        drop_pages(input.checkpoint.mappings, consumed);
      }));
}

void InputDigests::hash_site(const Site& site) {
  if (base_.is_hashed) add(base_, site.base_name, tensor_digest(site.base_name, *site.base));
  if (tuned_.is_hashed) add(tuned_, site.base_name, tensor_digest(site.base_name, *site.tuned));
}

void InputDigests::add(Input& input, const std::string& name, const Digest& digest) {
  const std::lock_guard lock(mutex_);
  input.digests[name] = digest;
}

BaseLock InputDigests::base_lock(int threads, const Sinks& sinks) const {
  return lock_of(base_.checkpoint, threads, sinks, base_.digests);
}

Digest InputDigests::tuned_root(const BaseLock& base, int threads, const Sinks& sinks) const {
  std::map<std::string, Digest> known = tuned_.digests;
  for (const std::string& name : alike_)
    if (const auto found = base.tensors.find(name); found != base.tensors.end())
      known[name] = found->second.digest;
  return lock_of(tuned_.checkpoint, threads, sinks, known).root;
}

}  // namespace lora::extraction
