#include "lora/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "lora/base/error.h"

namespace lora {
namespace {

Error cannot_read(const std::filesystem::path& path, int code) {
  const bool missing = code == ENOENT || code == ENOTDIR;
  return Error(missing ? ErrorKind::not_found : ErrorKind::malformed,
               "cannot read " + path.string() + ": " +
                   (missing ? "no such file" : std::string(std::strerror(code))))
      .in_file(path.string());
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (size_ != 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw cannot_read(path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const int code = errno;
    ::close(fd);
    throw cannot_read(path, code);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(ErrorKind::malformed,
                "cannot read " + path.string() + ": found " +
                    (S_ISDIR(info.st_mode) ? "a directory" : "a special file") +
                    ", expected a regular file")
        .in_file(path.string());
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  const std::byte* data = nullptr;
  if (size != 0) {
    void* mapping =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (mapping == MAP_FAILED) {
      const int code = errno;
      ::close(fd);
      throw cannot_read(path, code);
    }
    data = static_cast<const std::byte*>(mapping);
  }
  ::close(fd);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

void MappedFile::drop(std::size_t offset, std::size_t length) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = (offset + page - 1) / page * page;
  const std::size_t last = (offset + length) / page * page;
  if (last > first && last <= size_)
    ::madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_DONTNEED);
}

void drop_pages(const std::vector<std::shared_ptr<const MappedFile>>& mappings,
                std::span<const std::byte> bytes) {
  for (const auto& mapping : mappings) {
    const auto all = mapping->bytes();
    if (bytes.data() < all.data() || bytes.data() + bytes.size() > all.data() + all.size())
      continue;
    mapping->drop(static_cast<std::size_t>(bytes.data() - all.data()), bytes.size());
    return;
  }
}

}  // namespace lora
