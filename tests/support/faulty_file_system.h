// A file system over the real one that fails on request.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/file_system.h"

namespace lora::testing {

/// Every fault is off at first. A fault throws what the real file system throws: Error(output).
class FaultyFileSystem final : public FileSystem {
 public:
  std::uint64_t bytes_until_full = std::numeric_limits<std::uint64_t>::max();
  bool refuses_create = false;
  bool refuses_sync = false;
  bool can_exchange = true;
  int refused_rename = 0;  ///< the n-th rename from the start fails (1 is the first)
  int renames = 0;
  int writes = 0;
  std::uint64_t largest_write = 0;

  std::unique_ptr<WritableFile> create(const std::filesystem::path& path) override {
    if (refuses_create) throw failure("cannot create " + path.string());
    return std::make_unique<File>(*this, real_file_system().create(path));
  }
  void create_directory(const std::filesystem::path& path) override {
    real_file_system().create_directory(path);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (++renames == refused_rename) throw failure("cannot rename to " + to.string());
    real_file_system().rename(from, to);
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    return can_exchange && real_file_system().exchange(a, b);
  }
  void sync_directory(const std::filesystem::path& directory) override {
    real_file_system().sync_directory(directory);
  }
  void remove_all(const std::filesystem::path& path) noexcept override {
    real_file_system().remove_all(path);
  }
  void remove_if_empty(const std::filesystem::path& directory) noexcept override {
    real_file_system().remove_if_empty(directory);
  }

 private:
  static Error failure(std::string message) {
    return Error(ErrorKind::output, std::move(message) + ": injected");
  }

  class File final : public WritableFile {
   public:
    File(FaultyFileSystem& owner, std::unique_ptr<WritableFile> real)
        : owner_(owner), real_(std::move(real)) {}
    /// What fits goes to the disk before the failure, as with a real short write.
    void write(std::span<const std::byte> bytes) override {
      ++owner_.writes;
      owner_.largest_write = std::max<std::uint64_t>(owner_.largest_write, bytes.size());
      const std::size_t fits = std::min<std::uint64_t>(bytes.size(), owner_.bytes_until_full);
      real_->write(bytes.first(fits));
      owner_.bytes_until_full -= fits;
      if (fits < bytes.size()) throw failure("cannot write: no space left");
    }
    void sync_and_close() override {
      if (owner_.refuses_sync) throw failure("cannot flush");
      real_->sync_and_close();
    }

   private:
    FaultyFileSystem& owner_;
    std::unique_ptr<WritableFile> real_;
  };
};

}  // namespace lora::testing
