// The directory of one training run while it is written (lora/checkpoint/train_run.h says what is
// in it): who owns it, what may replace it, which checkpoints stay.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "lora/base/file_system.h"

namespace lora::engine {

/// Owns a run directory for the life of the object (flock on RUN/.lock, which holds the owner's
/// process id). The lock goes with the process, however it ends. What a killed owner had not
/// finished is removed first.
class RunDirectory {
 public:
  enum class Use {
    create,   ///< a new run: the directory is absent, empty, or holds only what a run writes
              ///< before its run.json
    replace,  ///< --force: a former run is removed by clear(), not before
    resume,   ///< the directory must hold run.json
  };

  /// Throws Error(output) when another process owns the directory (naming its id), when it exists
  /// and `use` is create, or when it holds something that is no run; Error(not_found) when there is
  /// nothing to resume.
  RunDirectory(std::filesystem::path path, Use use, FileSystem& fs);

  /// Removes the directory again when this object made it and no run.json was written.
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  /// Removes what a former run left; the lock stays.
  void clear();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path adapter() const { return path_ / "adapter"; }

  /// Removes the oldest checkpoints so that `keep` (at least 1) are left.
  void prune(std::int64_t keep);

 private:
  void lock();
  void release();

  std::filesystem::path path_;
  FileSystem& fs_;
  int lock_fd_ = -1;
  std::vector<std::filesystem::path> made_;  ///< directories this object created, outermost first
};

/// Throws as the constructor of RunDirectory would, without taking the lock (dry runs).
void check_run_directory(const std::filesystem::path& path, RunDirectory::Use use);

}  // namespace lora::engine
