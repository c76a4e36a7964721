// Read-only memory mapping of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace lora {

/// Maps a regular file. The pages are private: a stray write through a cast never reaches the
/// file. The size is taken once; a file that another process truncates while it is mapped raises
/// SIGBUS on access, which no library can turn into an error.
class MappedFile {
 public:
  /// Throws Error(not_found) when the path does not exist, Error(malformed) when it is not a
  /// regular file or cannot be read. An empty file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Tells the kernel that these bytes will not be needed again soon (streaming passes).
  void drop(std::size_t offset, std::size_t length) const;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size);
  std::filesystem::path path_;
  const std::byte* data_;
  std::size_t size_;
};

/// Drops the pages of `bytes` when they lie in one of `mappings`, and nothing otherwise: on a heap
/// buffer the call would erase data.
void drop_pages(const std::vector<std::shared_ptr<const MappedFile>>& mappings,
                std::span<const std::byte> bytes);

}  // namespace lora
