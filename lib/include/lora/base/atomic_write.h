// Files and directories that appear complete or not at all.
//
// A file is written under a temporary name beside its target, synced and renamed. A directory is
// filled as a hidden sibling and renamed last. An interruption leaves the old content as it was; a
// killed process can leave only a hidden sibling `.NAME.lora-tmp-PID-N`, which the next write to
// the same target removes once its process is gone. Where the system cannot exchange two
// directories, one killed between two renames leaves the old version as `.NAME.lora-old-PID-N`, and
// the next write puts it back first. What goes takes such a hidden name too before it is removed,
// so that no half of a directory is ever seen under its own name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lora/base/file_system.h"

namespace lora {

struct WriteOptions {
  bool force = false;                 ///< replace an existing target
  FileSystem* file_system = nullptr;  ///< null: the real one
  FileSystem& fs() const { return file_system ? *file_system : real_file_system(); }
};

/// Throws Error(output) when `path` exists and `force` is false; the hint names --force.
/// An existing empty directory counts as absent when `for_directory` is true. Even with `force` a
/// file never replaces a directory, a directory never a file, and nothing a device or pipe.
void require_absent(const std::filesystem::path& path, bool force, bool for_directory = false);

/// Calls `fill` with an open file under a temporary name, then syncs and renames it to `path`.
void write_file_atomically(const std::filesystem::path& path, const WriteOptions& options,
                           const std::function<void(WritableFile&)>& fill);
void write_file_atomically(const std::filesystem::path& path, std::string_view content,
                           const WriteOptions& options);

/// Removes a directory so that a process killed meanwhile leaves all of it or nothing under its
/// name. Best effort, as FileSystem::remove_all.
void discard_directory(const std::filesystem::path& path, FileSystem& fs) noexcept;

/// Removes what writers that are gone left in a directory, whatever their targets.
void remove_unfinished(const std::filesystem::path& directory, FileSystem& fs) noexcept;

/// True for the name of a file or directory that a writer has not finished, or was removing.
bool is_unfinished_name(std::string_view name);

/// A directory under construction. Write into staging_path(); commit() publishes it. Destroyed
/// without commit() it removes everything it made, missing parents of the target included.
class AtomicDirectory {
 public:
  /// Throws Error(output) when the target exists (see require_absent) or its parent is not
  /// writable. Missing parents are created.
  AtomicDirectory(std::filesystem::path target, const WriteOptions& options);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& staging_path() const { return staging_; }
  FileSystem& fs() const { return options_.fs(); }

  /// Opens a file inside the staging directory (sub-directories are created as needed).
  std::unique_ptr<WritableFile> create(const std::filesystem::path& relative);
  void write(const std::filesystem::path& relative, std::string_view content);

  /// Makes the directory visible at the target. With force, an existing target is exchanged and
  /// then removed. Without, a target that appeared meanwhile is left alone: Error(output).
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path staging_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  WriteOptions options_;
  bool committed_ = false;
};

}  // namespace lora
