#include "ops/merge/digests.h"

#include <algorithm>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/merge/finite.h"

namespace lora::merging {

// Four threads hash more than a pass reads; batches have one, which takes them in their order.
PassDigests::PassDigests(const Checkpoint& base, const Checkpoint& form, bool with_base,
                         const WriterOptions& options)
    : base_(base),
      form_(form),
      with_base_(with_base),
      options_(options),
      files_(std::min(options.threads > 0 ? options.threads : available_threads(), 4) - 1, true),
      batches_(options.threads == 1 ? 0 : 1, false) {
  options_.buffers.while_waiting([this] { return files_.help(); });
}

PassDigests::~PassDigests() { options_.buffers.while_waiting(nullptr); }

bool PassDigests::is_of_base(const replay::Target& target) const {
  const auto own = base_.tensors.find(target.base_name);
  return own != base_.tensors.end() && own->second.bytes.data() == target.base.bytes.data() &&
         own->second.shape == target.base.shape;
}

void PassDigests::listen(const replay::Target& target, Streams& streams) {
  const std::string& name = target.base_name;
  const auto [digest, is_first] = merged_digests_.emplace(name, Digest{});
  if (!is_first) return;  // a second name of the same tensor
  if (target.is_copy()) {
    if (is_of_base(target)) copied_.push_back(name);
    files_.add([this, &target, &out = digest->second] { out = digest_of(target, true); });
    return;
  }
  if (with_base_ && is_of_base(target))
    files_.add([this, &target, &out = base_digests_[name]] { out = digest_of(target, false); });
  hash_ = std::make_shared<TensorHash>(
      name, target.merged.dtype, target.merged.shape,
      static_cast<std::uint64_t>(target.merged.numel()) * bits_of(target.merged.dtype) / 8);
  streams.beside = [this, hash = hash_](Batch batch) {
    batches_.add([hash, batch = std::move(batch)] { hash->update(batch.bytes); });
  };
}

void PassDigests::finish(const replay::Target& target) {
  if (!hash_) return;
  batches_.add([hash = std::move(hash_), &out = merged_digests_.at(target.base_name)] {
    out = hash->finish();
  });
  hash_.reset();
}

Digest PassDigests::digest_of(const replay::Target& target, bool is_checked) const {
  return tensor_digest(target.base_name, target.base, [&](std::span<const std::byte> bytes) {
    options_.sinks.throw_if_cancelled();
    if (is_checked) require_finite(target.base_name, target.base.dtype, bytes);
    drop_pages(options_.mappings, bytes);
  });
}

void PassDigests::settle() {
  files_.settle();
  batches_.settle();
  for (const std::string& name : copied_) base_digests_[name] = merged_digests_.at(name);
}

BaseLock PassDigests::merged(const Checkpoint& written) const {
  for (const auto& [name, tensor] : form_.tensors) {
    const Tensor* found = written.find(name);
    if (found == nullptr || found->dtype != tensor.dtype || found->shape != tensor.shape)
      throw Error(ErrorKind::internal,
                  "the merge does not open as it was planned: " + name +
                      (found == nullptr ? " is missing"
                                        : " is " + std::string(to_string(found->dtype)) + " " +
                                              shape_to_string(found->shape)))
          .in_tensor(name);
  }
  return compute_base_lock(written, options_.threads, options_.sinks, merged_digests_);
}

BaseLock PassDigests::base() const {
  return compute_base_lock(base_, options_.threads, options_.sinks, base_digests_);
}

}  // namespace lora::merging
