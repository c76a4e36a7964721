// The seam through which every write of this project reaches the disk.
//
// Production code uses real_file_system(); tests pass one that runs out of space, writes short,
// refuses a rename or stops in the middle. Reading is not part of it (see mapped_file.h).
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace lora {

/// A file being written, front to back.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  /// Writes all bytes or throws Error(output).
  virtual void write(std::span<const std::byte> bytes) = 0;
  /// Flushes to stable storage and closes; throws Error(output). Without it the destructor just
  /// closes and the content is not to be trusted.
  virtual void sync_and_close() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// Creates (or truncates) a file; mode 0666 less the umask.
  virtual std::unique_ptr<WritableFile> create(const std::filesystem::path& path) = 0;
  virtual void create_directory(const std::filesystem::path& path) = 0;
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// Atomically swaps two existing paths; false where the kernel or file system cannot.
  virtual bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) = 0;
  /// Makes a rename inside `directory` durable.
  virtual void sync_directory(const std::filesystem::path& directory) = 0;
  /// Best effort and silent: called while cleaning up after a failure.
  virtual void remove_all(const std::filesystem::path& path) noexcept = 0;
  /// Removes a directory only if nothing is in it, so that what others put there stays.
  virtual void remove_if_empty(const std::filesystem::path& directory) noexcept = 0;
};

FileSystem& real_file_system();

}  // namespace lora
