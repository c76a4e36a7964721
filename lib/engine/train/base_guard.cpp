#include "engine/train/base_guard.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/error.h"

namespace lora::engine {
namespace {

void describe_kind(std::string& text, const char* kind, const std::vector<std::string>& names) {
  constexpr std::size_t kNamed = 5;
  if (names.empty()) return;
  if (!text.empty()) text += ", ";
  text += std::to_string(names.size()) + " " + kind + " (";
  for (std::size_t i = 0; i < std::min(names.size(), kNamed); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kNamed) text += " and " + std::to_string(names.size() - kNamed) + " more";
  text += ")";
}

}  // namespace

std::string describe(const LockDifference& difference) {
  std::string text;
  describe_kind(text, "changed", difference.changed);
  describe_kind(text, "missing", difference.missing);
  describe_kind(text, "added", difference.added);
  return text;
}

BaseGuard::BaseGuard(const Checkpoint& base, std::shared_future<BaseLock> pending, int threads)
    : base_(base), threads_(threads), pending_(std::move(pending)) {
  if (!pending_.valid())
    pending_ = std::async(std::launch::async,
                          [&base, threads] { return compute_base_lock(base, threads); });
}

const BaseLock& BaseGuard::lock() {
  if (!lock_) lock_ = pending_.get();
  return *lock_;
}

void BaseGuard::require_same_as(const std::filesystem::path& run_dir) {
  const BaseLock recorded = read_base_lock(run_dir / kBaseLockName);
  if (recorded.root == lock().root) return;
  throw Error(ErrorKind::incompatible,
              "cannot resume " + run_dir.string() + ": the base " + base_.path.string() +
                  " has changed since: " + describe(compare(recorded, lock())))
      .in_file(base_.path.string())
      .with_hint("resume with the base the run was started on");
}

void BaseGuard::require_unchanged() {
  const LockDifference difference = compare(lock(), compute_base_lock(base_, threads_));
  if (difference.is_empty()) return;
  throw Error(ErrorKind::internal,
              "the frozen base was written to during training: " + describe(difference))
      .in_file(base_.path.string())
      .with_hint("another program may have changed the file; otherwise please report this");
}

}  // namespace lora::engine
