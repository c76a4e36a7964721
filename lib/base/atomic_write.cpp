#include "lora/base/atomic_write.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <string>
#include <system_error>
#include <utility>

#include "lora/base/error.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr std::string_view kMarker = ".lora-tmp-";

stdfs::path parent_of(const stdfs::path& path) {
  const stdfs::path parent = path.parent_path();
  return parent.empty() ? stdfs::path(".") : parent;
}

std::string staging_prefix(const stdfs::path& target) {
  return "." + target.filename().string() + std::string(kMarker);
}

stdfs::path staging_name(const stdfs::path& target) {
  static std::atomic<unsigned> counter{0};
  return parent_of(target) / (staging_prefix(target) + std::to_string(::getpid()) + "-" +
                              std::to_string(counter.fetch_add(1)));
}

// Leftovers of killed processes: same target, and no process has that id any more.
void remove_stale_siblings(const stdfs::path& target, FileSystem& fs) {
  const std::string prefix = staging_prefix(target);
  std::error_code ignored;
  for (const auto& entry : stdfs::directory_iterator(parent_of(target), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    int pid = 0;
    const char* first = name.data() + prefix.size();
    const auto parsed = std::from_chars(first, name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || pid <= 0) continue;
    if (::kill(pid, 0) != 0 && errno == ESRCH) fs.remove_all(entry.path());
  }
}

stdfs::path create_missing_parents(const stdfs::path& target, FileSystem& fs) {
  const stdfs::path parent = parent_of(target);
  if (stdfs::is_directory(parent)) return {};
  const stdfs::path above = create_missing_parents(parent, fs);
  fs.create_directory(parent);
  return above.empty() ? parent : above;
}

stdfs::path without_trailing_slash(stdfs::path path) {
  path = path.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

void require_absent(const stdfs::path& path, bool force, bool for_directory) {
  std::error_code ignored;
  const auto status = stdfs::symlink_status(path, ignored);
  if (!stdfs::exists(status)) return;
  if (for_directory && stdfs::is_directory(status) && stdfs::is_empty(path, ignored)) return;
  if (force) {
    if (!for_directory && stdfs::is_directory(status))
      throw Error(ErrorKind::output, "cannot replace directory " + path.string() + " by a file")
          .in_file(path.string());
    return;
  }
  throw Error(ErrorKind::output, "output " + path.string() + " exists already")
      .in_file(path.string())
      .with_hint("choose another output, or pass --force to replace it");
}

void write_file_atomically(const stdfs::path& path, const WriteOptions& options,
                           const std::function<void(WritableFile&)>& fill) {
  require_absent(path, options.force);
  FileSystem& fs = options.fs();
  const stdfs::path first_parent = create_missing_parents(path, fs);
  remove_stale_siblings(path, fs);
  const stdfs::path staging = staging_name(path);
  try {
    auto file = fs.create(staging);
    fill(*file);
    file->sync_and_close();
    file.reset();
    fs.rename(staging, path);
    fs.sync_directory(parent_of(path));
  } catch (...) {
    fs.remove_all(staging);
    if (!first_parent.empty()) fs.remove_all(first_parent);
    throw;
  }
}

void write_file_atomically(const stdfs::path& path, std::string_view content,
                           const WriteOptions& options) {
  write_file_atomically(path, options, [&](WritableFile& file) {
    file.write(std::as_bytes(std::span(content.data(), content.size())));
  });
}

AtomicDirectory::AtomicDirectory(stdfs::path target, const WriteOptions& options)
    : target_(without_trailing_slash(std::move(target))), options_(options) {
  require_absent(target_, options_.force, true);
  first_created_parent_ = create_missing_parents(target_, fs());
  remove_stale_siblings(target_, fs());
  staging_ = staging_name(target_);
  try {
    fs().create_directory(staging_);
  } catch (...) {
    if (!first_created_parent_.empty()) fs().remove_all(first_created_parent_);
    throw;
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (committed_) return;
  fs().remove_all(staging_);
  if (!first_created_parent_.empty()) fs().remove_all(first_created_parent_);
}

std::unique_ptr<WritableFile> AtomicDirectory::create(const stdfs::path& relative) {
  const stdfs::path path = staging_ / relative;
  create_missing_parents(path, fs());
  return fs().create(path);
}

void AtomicDirectory::write(const stdfs::path& relative, std::string_view content) {
  auto file = create(relative);
  file->write(std::as_bytes(std::span(content.data(), content.size())));
  file->sync_and_close();
}

void AtomicDirectory::commit() {
  std::error_code ignored;
  fs().sync_directory(staging_);
  const bool replaces = stdfs::exists(stdfs::symlink_status(target_, ignored));
  if (replaces && fs().exchange(staging_, target_)) {
    committed_ = true;
    fs().sync_directory(parent_of(target_));
    fs().remove_all(staging_);
    return;
  }
  if (replaces) {
    // No atomic exchange here: keep the old version under a name of its own until the new one is in.
    const stdfs::path old = staging_name(target_);
    fs().rename(target_, old);
    try {
      fs().rename(staging_, target_);
    } catch (...) {
      fs().rename(old, target_);
      throw;
    }
    committed_ = true;
    fs().remove_all(old);
  } else {
    fs().rename(staging_, target_);
    committed_ = true;
  }
  fs().sync_directory(parent_of(target_));
}

}  // namespace lora
