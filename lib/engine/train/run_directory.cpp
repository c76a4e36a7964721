#include "engine/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "lora/base/atomic_write.h"
#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/train_run.h"

namespace lora::engine {
namespace {

namespace stdfs = std::filesystem;

constexpr const char* kLockName = ".lock";

// What a run that was killed before its run.json leaves behind: nothing that anyone would miss.
bool holds_no_run_yet(const stdfs::path& directory) {
  for (const auto& entry : stdfs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name != kLockName && name != kBaseLockName && !is_unfinished_name(name)) return false;
  }
  return true;
}

void create_with_parents(const stdfs::path& path, FileSystem& fs, std::vector<stdfs::path>& made) {
  const stdfs::path parent = path.parent_path();
  if (!parent.empty() && !stdfs::exists(parent)) create_with_parents(parent, fs, made);
  fs.create_directory(path);
  made.push_back(path);
}

std::string owner_of(int fd) {
  char text[32] = {};
  const ssize_t length = ::pread(fd, text, sizeof text - 1, 0);
  std::string owner(text, length > 0 ? static_cast<std::size_t>(length) : 0);
  while (!owner.empty() && owner.back() == '\n') owner.pop_back();
  return owner.empty() ? "unknown" : owner;
}

}  // namespace

void check_run_directory(const stdfs::path& path, RunDirectory::Use use) {
  std::error_code ignored;
  const bool exists = stdfs::exists(path, ignored);
  if (use == RunDirectory::Use::resume) {
    if (stdfs::exists(path / kRunRecordName, ignored)) return;
    throw Error(ErrorKind::not_found, "cannot resume " + path.string() + ": " +
                                          (exists ? "it holds no run.json" : "no such directory"))
        .in_file(path.string())
        .with_hint("start a new run without --resume");
  }
  if (!exists) return;
  if (!stdfs::is_directory(path, ignored))
    throw Error(ErrorKind::output, "run directory " + path.string() + " is not a directory")
        .in_file(path.string());
  if (holds_no_run_yet(path)) return;
  if (use == RunDirectory::Use::create)
    throw Error(ErrorKind::output, "run directory " + path.string() + " exists already")
        .in_file(path.string())
        .with_hint("continue it with --resume, replace it with --force, or choose another");
  if (!stdfs::exists(path / kRunRecordName, ignored))
    throw Error(ErrorKind::output, "cannot replace " + path.string() +
                                       ": it holds files and no run.json, so it is not a run")
        .in_file(path.string())
        .with_hint("choose another run directory");
}

RunDirectory::RunDirectory(stdfs::path path, Use use, FileSystem& fs)
    : path_(std::move(path)), fs_(fs) {
  if (path_.empty())
    throw Error(ErrorKind::usage, "no run directory was given").with_hint("pass --run-dir DIR");
  path_ = path_.lexically_normal();
  if (!path_.has_filename()) path_ = path_.parent_path();
  check_run_directory(path_, use);
  try {
    if (!stdfs::exists(path_)) create_with_parents(path_, fs_, made_);
    lock();
    // Another run may have come and gone between the check and the lock.
    check_run_directory(path_, use);
    for (const stdfs::path& directory : {path_, path_ / "checkpoints"})
      remove_unfinished(directory, fs_);
  } catch (...) {
    release();
    throw;
  }
}

RunDirectory::~RunDirectory() { release(); }

void RunDirectory::release() {
  std::error_code ignored;
  if (lock_fd_ >= 0 && !made_.empty() && !stdfs::exists(path_ / kRunRecordName, ignored)) {
    fs_.remove_all(path_ / kBaseLockName);
    fs_.remove_all(path_ / kLockName);
  }
  // Another process may have put something there meanwhile: only what is empty goes.
  for (; !made_.empty(); made_.pop_back()) fs_.remove_if_empty(made_.back());
  if (lock_fd_ >= 0) ::close(std::exchange(lock_fd_, -1));
}

void RunDirectory::lock() {
  const stdfs::path file = path_ / kLockName;
  lock_fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_fd_ < 0)
    throw Error(ErrorKind::output,
                "cannot lock run directory " + path_.string() + ": " + std::strerror(errno))
        .in_file(path_.string());
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const std::string owner = owner_of(lock_fd_);
    ::close(std::exchange(lock_fd_, -1));
    throw Error(ErrorKind::output,
                "run directory " + path_.string() + " is in use by process " + owner)
        .in_file(path_.string())
        .with_hint("wait for that run to end, or choose another run directory");
  }
  const std::string owner = std::to_string(::getpid()) + "\n";
  if (::ftruncate(lock_fd_, 0) != 0 ||
      ::pwrite(lock_fd_, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size()))
    throw Error(ErrorKind::output, "cannot write " + file.string() + ": " + std::strerror(errno))
        .in_file(file.string());
}

void RunDirectory::clear() {
  // run.json goes last: until then an interrupted clearing still looks like a run.
  for (const char* name : {"adapter", "checkpoints"}) discard_directory(path_ / name, fs_);
  for (const char* name : {"metrics.jsonl", kBaseLockName, kRunRecordName})
    fs_.remove_all(path_ / name);
}

void RunDirectory::prune(std::int64_t keep) {
  const std::vector<std::int64_t> steps = checkpoint_steps(path_);
  const auto kept = static_cast<std::size_t>(std::max<std::int64_t>(1, keep));
  for (std::size_t i = 0; i + kept < steps.size(); ++i)
    discard_directory(checkpoint_path(path_, steps[i]), fs_);
}

}  // namespace lora::engine
