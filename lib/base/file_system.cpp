#include "lora/base/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "lora/base/error.h"

namespace lora {
namespace {

Error cannot(const char* action, const std::filesystem::path& path, int code) {
  Error error(ErrorKind::output,
              std::string("cannot ") + action + " " + path.string() + ": " + std::strerror(code));
  error.in_file(path.string());
  if (code == ENOSPC || code == EDQUOT)
    error.with_hint("free some space or choose another output folder");
  return error;
}

class PosixFile final : public WritableFile {
 public:
  PosixFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~PosixFile() override {
    if (fd_ >= 0) ::close(fd_);
  }

  void write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        throw cannot("write", path_, errno);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(written));
      written_ += written;
    }
    start_writeback();
  }

  void sync_and_close() override {
    if (::fsync(fd_) != 0 && errno != EINVAL) throw cannot("flush", path_, errno);
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) throw cannot("close", path_, errno);
  }

 private:
  // The disk begins while the rest is still being made, so that the flush at the end is short.
  void start_writeback() {
    constexpr off_t kStretch = 8 << 20;
    if (written_ - started_ < kStretch) return;
    ::sync_file_range(fd_, started_, written_ - started_, SYNC_FILE_RANGE_WRITE);
    started_ = written_;
  }

  std::filesystem::path path_;
  int fd_;
  off_t written_ = 0, started_ = 0;
};

class PosixFileSystem final : public FileSystem {
 public:
  std::unique_ptr<WritableFile> create(const std::filesystem::path& path) override {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) throw cannot("create", path, errno);
    return std::make_unique<PosixFile>(path, fd);
  }

  void create_directory(const std::filesystem::path& path) override {
    if (::mkdir(path.c_str(), 0777) != 0) throw cannot("create directory", path, errno);
  }

  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) throw cannot("rename to", to, errno);
  }

  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    constexpr unsigned kRenameExchange = 2;
    return ::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kRenameExchange) == 0;
  }

  void sync_directory(const std::filesystem::path& directory) override {
    const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;  // not every file system lets a directory be opened
    ::fsync(fd);
    ::close(fd);
  }

  void remove_all(const std::filesystem::path& path) noexcept override {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  void remove_if_empty(const std::filesystem::path& directory) noexcept override {
    ::rmdir(directory.c_str());
  }
};

}  // namespace

FileSystem& real_file_system() {
  static PosixFileSystem file_system;
  return file_system;
}

}  // namespace lora
