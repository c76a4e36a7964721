#include "lora/base/atomic_write.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <new>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "lora/base/error.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr std::string_view kNewMarker = ".lora-tmp-";
constexpr std::string_view kOldMarker = ".lora-old-";

stdfs::path parent_of(const stdfs::path& path) {
  const stdfs::path parent = path.parent_path();
  return parent.empty() ? stdfs::path(".") : parent;
}

std::string sibling_prefix(const stdfs::path& target, std::string_view marker) {
  std::string prefix(1, '.');
  return prefix.append(target.filename().string()).append(marker);
}

std::atomic<unsigned> next_number{0};

// A process in a container often has the id of the one before it: what exists is not ours to use.
stdfs::path sibling_name(const stdfs::path& target, std::string_view marker) {
  const std::string prefix = sibling_prefix(target, marker) + std::to_string(::getpid()) + "-";
  stdfs::path path;
  std::error_code ignored;
  do path = parent_of(target) / (prefix + std::to_string(next_number.fetch_add(1)));
  while (stdfs::exists(stdfs::symlink_status(path, ignored)));
  return path;
}

// Whether the id of a process + "-N" is of one that is gone. Our own id with a number that we have
// not given yet is of a process that had the id before us.
bool is_of_gone_process(std::string_view text) {
  const char* const end = text.data() + text.size();
  int pid = 0;
  const auto id = std::from_chars(text.data(), end, pid);
  if (id.ec != std::errc() || pid <= 0) return false;
  if (pid != ::getpid()) return ::kill(pid, 0) != 0 && errno == ESRCH;
  unsigned number = 0;
  return id.ptr != end && std::from_chars(id.ptr + 1, end, number).ec == std::errc() &&
         number >= next_number;
}

bool is_leftover(std::string_view name, const std::string& prefix) {
  return name.starts_with(prefix) && is_of_gone_process(name.substr(prefix.size()));
}

// Cleans up after killed processes. One killed between the two renames of commit() left the old
// version under a hidden name and nothing at the target: that version goes back.
void recover_from_killed_writers(const stdfs::path& target, FileSystem& fs) {
  const std::string new_prefix = sibling_prefix(target, kNewMarker);
  const std::string old_prefix = sibling_prefix(target, kOldMarker);
  std::vector<stdfs::path> unfinished;
  std::vector<stdfs::path> set_aside;
  std::error_code error;
  for (stdfs::directory_iterator it(parent_of(target), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (is_leftover(name, new_prefix)) unfinished.push_back(it->path());
    if (is_leftover(name, old_prefix)) set_aside.push_back(it->path());
  }
  for (const stdfs::path& path : unfinished) fs.remove_all(path);
  for (const stdfs::path& path : set_aside) {
    if (stdfs::exists(stdfs::symlink_status(target, error))) {
      fs.remove_all(path);
    } else {
      fs.rename(path, target);
    }
  }
}

void remove_created_parents(const std::vector<stdfs::path>& created, FileSystem& fs) {
  for (auto it = created.rbegin(); it != created.rend(); ++it) fs.remove_if_empty(*it);
}

// Returns the directories made, outermost first; makes none when it throws.
std::vector<stdfs::path> create_missing_parents(const stdfs::path& target, FileSystem& fs) {
  std::vector<stdfs::path> missing;
  std::error_code ignored;
  for (stdfs::path parent = parent_of(target);
       !stdfs::is_directory(parent, ignored) && parent != parent_of(parent);
       parent = parent_of(parent))
    missing.insert(missing.begin(), parent);
  std::vector<stdfs::path> created;
  try {
    for (const stdfs::path& directory : missing) {
      fs.create_directory(directory);
      created.push_back(directory);
    }
  } catch (...) {
    remove_created_parents(created, fs);
    throw;
  }
  return created;
}

// "out/" and "." as a path whose last part is the directory's own name.
stdfs::path named_directory(stdfs::path path) {
  while (!path.has_filename() && path.has_relative_path()) path = path.parent_path();
  std::error_code error;
  if (path.filename() == "." || path.filename() == "..")
    path = stdfs::weakly_canonical(path, error);
  return path;
}

}  // namespace

void require_absent(const stdfs::path& path, bool force, bool for_directory) {
  std::error_code ignored;
  const auto status = stdfs::symlink_status(path, ignored);
  if (!stdfs::exists(status)) return;
  if (for_directory && stdfs::is_directory(status) && stdfs::is_empty(path, ignored)) return;
  const auto cannot_replace = [&](const char* found) {
    return Error(ErrorKind::output, "cannot replace " + path.string() + ": found " + found +
                                        ", expected " +
                                        (for_directory ? "a directory" : "a regular file"))
        .in_file(path.string());
  };
  if (force) {
    if (stdfs::is_symlink(status)) return;
    if (stdfs::is_directory(status) && !for_directory) throw cannot_replace("a directory");
    if (stdfs::is_regular_file(status) && for_directory) throw cannot_replace("a regular file");
    if (!stdfs::is_directory(status) && !stdfs::is_regular_file(status))
      throw cannot_replace("a special file");
    return;
  }
  throw Error(ErrorKind::output, "output " + path.string() + " exists already")
      .in_file(path.string())
      .with_hint("choose another output, or pass --force to replace it");
}

void discard_directory(const stdfs::path& path, FileSystem& fs) noexcept {
  std::error_code ignored;
  if (!stdfs::exists(stdfs::symlink_status(path, ignored))) return;
  try {
    const stdfs::path hidden = sibling_name(path, kNewMarker);
    fs.rename(path, hidden);
    fs.remove_all(hidden);
  } catch (...) {
    fs.remove_all(path);  // a full disk may have no room for a name, and this makes some
  }
}

bool is_unfinished_name(std::string_view name) {
  return name.starts_with(".") && name.find(kNewMarker) != std::string_view::npos;
}

void remove_unfinished(const stdfs::path& directory, FileSystem& fs) noexcept {
  try {
    std::vector<stdfs::path> unfinished;
    std::error_code absent;
    for (stdfs::directory_iterator it(directory, absent), end; !absent && it != end;
         it.increment(absent)) {
      const std::string name = it->path().filename().string();
      if (is_unfinished_name(name) && is_of_gone_process(std::string_view(name).substr(
                                          name.rfind(kNewMarker) + kNewMarker.size())))
        unfinished.push_back(it->path());
    }
    for (const stdfs::path& path : unfinished) fs.remove_all(path);
  } catch (const std::bad_alloc&) {
    // The next owner tries again.
  }
}

void write_file_atomically(const stdfs::path& path, const WriteOptions& options,
                           const std::function<void(WritableFile&)>& fill) {
  require_absent(path, options.force);
  FileSystem& fs = options.fs();
  const auto created_parents = create_missing_parents(path, fs);
  stdfs::path staging;
  try {
    recover_from_killed_writers(path, fs);
    staging = sibling_name(path, kNewMarker);
    auto file = fs.create(staging);
    fill(*file);
    file->sync_and_close();
    file.reset();
    fs.rename(staging, path);
    fs.sync_directory(parent_of(path));
  } catch (...) {
    if (!staging.empty()) fs.remove_all(staging);
    remove_created_parents(created_parents, fs);
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
    : target_(named_directory(std::move(target))), options_(options) {
  created_parents_ = create_missing_parents(target_, fs());
  try {
    recover_from_killed_writers(target_, fs());
    require_absent(target_, options_.force, true);
    staging_ = sibling_name(target_, kNewMarker);
    fs().create_directory(staging_);
  } catch (...) {
    remove_created_parents(created_parents_, fs());
    throw;
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (committed_) return;
  fs().remove_all(staging_);
  remove_created_parents(created_parents_, fs());
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
  std::error_code error;
  for (stdfs::recursive_directory_iterator it(staging_, error), end; !error && it != end;
       it.increment(error))
    if (it->is_directory(error)) fs().sync_directory(it->path());
  fs().sync_directory(staging_);
  const bool replaces = options_.force && stdfs::exists(stdfs::symlink_status(target_, error));
  if (!replaces) {
    // Takes the place of nothing or of an empty directory; the kernel refuses anything else.
    fs().rename(staging_, target_);
    committed_ = true;
    fs().sync_directory(parent_of(target_));
    return;
  }
  if (fs().exchange(staging_, target_)) {
    committed_ = true;
    fs().sync_directory(parent_of(target_));
    fs().remove_all(staging_);
    return;
  }
  // No atomic exchange here: the old version waits under a hidden name until the new one is in.
  const stdfs::path old = sibling_name(target_, kOldMarker);
  fs().rename(target_, old);
  try {
    fs().rename(staging_, target_);
  } catch (...) {
    fs().rename(old, target_);
    throw;
  }
  committed_ = true;
  fs().sync_directory(parent_of(target_));
  fs().remove_all(old);
}

}  // namespace lora
