#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "lora/base/atomic_write.h"
#include "support/faulty_file_system.h"
#include "support/testing.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;
using testing::entry_count;
using testing::FaultyFileSystem;
using testing::read_file;
using testing::require_error;
using testing::TempDir;

constexpr WriteOptions kForce{.force = true};

void write_version(const stdfs::path& target, const WriteOptions& options,
                   const std::string& version) {
  AtomicDirectory out(target, options);
  out.write("a", version);
  out.write("sub/b", version);
  out.commit();
}

void require_version(const stdfs::path& target, const std::string& version) {
  REQUIRE(entry_count(target) == 2);
  REQUIRE(read_file(target / "a") == version);
  REQUIRE(read_file(target / "sub/b") == version);
}

/// Runs `body` in a process of its own, which must be killed by a signal.
template <typename Body>
void run_until_killed(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
}

/// Dies at the n-th rename, before (0) or after (1) it is done.
class KilledAtRename final : public FileSystem {
 public:
  KilledAtRename(int number, bool done) : number_(number), done_(done) {}
  std::unique_ptr<WritableFile> create(const stdfs::path& path) override {
    return real_file_system().create(path);
  }
  void create_directory(const stdfs::path& path) override {
    real_file_system().create_directory(path);
  }
  void rename(const stdfs::path& from, const stdfs::path& to) override {
    const bool dies = ++count_ == number_;
    if (dies && !done_) ::kill(::getpid(), SIGKILL);
    real_file_system().rename(from, to);
    if (dies) ::kill(::getpid(), SIGKILL);
  }
  bool exchange(const stdfs::path&, const stdfs::path&) override { return false; }
  void sync_directory(const stdfs::path&) override {}
  void remove_all(const stdfs::path& path) noexcept override {
    real_file_system().remove_all(path);
  }
  void remove_if_empty(const stdfs::path& path) noexcept override {
    real_file_system().remove_if_empty(path);
  }

 private:
  int number_;
  bool done_;
  int count_ = 0;
};

}  // namespace

TEST_CASE("a directory appears whole on commit") {
  const TempDir dir;
  {
    AtomicDirectory out(dir / "p/out", {});
    out.write("a", "1");
    REQUIRE_FALSE(stdfs::exists(dir / "p/out"));
    REQUIRE(out.staging_path().parent_path() == dir / "p");
    out.write("sub/b", "1");
    out.commit();
  }
  require_version(dir / "p/out", "1");
  REQUIRE(entry_count(dir / "p") == 1);
}

TEST_CASE("a directory that is removed is never seen without some of its files") {
  const TempDir dir;
  const auto fill = [&] {
    for (const char* name : {"out/a", "out/b"}) testing::write_file(dir / name, "1");
  };
  for (const bool done : {false, true}) {
    fill();
    run_until_killed([&] {
      KilledAtRename killer(1, done);
      discard_directory(dir / "out", killer);
    });
    if (done) {
      REQUIRE_FALSE(stdfs::exists(dir / "out"));
    } else {
      REQUIRE(entry_count(dir / "out") == 2);
    }
    remove_unfinished(dir.path(), real_file_system());
    REQUIRE(entry_count(dir.path()) == (done ? 0 : 1));
  }
  fill();
  FaultyFileSystem disk;
  disk.refused_rename = 1;
  discard_directory(dir / "out", disk);
  REQUIRE(entry_count(dir.path()) == 0);
  discard_directory(dir / "absent", real_file_system());
}

TEST_CASE("what a living process is writing stays") {
  const TempDir dir;
  const std::string living = ".out.lora-tmp-" + std::to_string(::getppid()) + "-0";
  for (const std::string& name : {living, std::string(".out.lora-tmp-99999999-0")})
    testing::write_file(dir / name / "x", "x");
  remove_unfinished(dir.path(), real_file_system());
  REQUIRE(entry_count(dir.path()) == 1);
  REQUIRE(stdfs::exists(dir / living));
}

TEST_CASE("what a process with our own id left is in nobody's way") {
  const TempDir dir;
  const std::string file = ".x.lora-tmp-" + std::to_string(::getpid()) + "-1000000";
  testing::write_file(dir / file, "x");
  write_file_atomically(dir / "x", "y", {});
  REQUIRE(entry_count(dir.path()) == 1);
  stdfs::remove(dir / "x");
  const std::string own = ".out.lora-tmp-" + std::to_string(::getpid()) + "-";
  for (int number = 0; number < 100; ++number)
    testing::write_file(dir / (own + std::to_string(number)) / "x", "x");
  {
    AtomicDirectory out(dir / "out", {});
    out.write("a", "1");
    REQUIRE_FALSE(stdfs::exists(out.staging_path() / "x"));
    out.commit();
  }
  REQUIRE(entry_count(dir / "out") == 1);
}

TEST_CASE("a directory that is not committed disappears with the parents made for it") {
  const TempDir dir;
  {
    AtomicDirectory out(dir / "p/q/out", {});
    out.write("a", "1");
  }
  REQUIRE(entry_count(dir.path()) == 0);
  {
    AtomicDirectory out(dir / "p/q/out", {});
    testing::write_file(dir / "p/other", "theirs");
  }
  REQUIRE(entry_count(dir / "p") == 1);
  REQUIRE(read_file(dir / "p/other") == "theirs");
}

TEST_CASE("a directory is replaced only with force, an empty one always") {
  const TempDir dir;
  stdfs::create_directory(dir / "out");
  write_version(dir / "out", {}, "1");
  require_version(dir / "out", "1");
  require_error(ErrorKind::output, "exists already", [&] { write_version(dir / "out", {}, "2"); });
  require_version(dir / "out", "1");
  write_version(dir / "out", kForce, "2");
  require_version(dir / "out", "2");
  write_version(dir / "out/", kForce, "3");
  require_version(dir / "out", "3");
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("a directory filled by someone else meanwhile is left alone without force") {
  const TempDir dir;
  stdfs::create_directory(dir / "out");
  {
    AtomicDirectory out(dir / "out", {});
    out.write("a", "1");
    testing::write_file(dir / "out/theirs", "x");
    require_error(ErrorKind::output, "cannot rename", [&] { out.commit(); });
  }
  REQUIRE(entry_count(dir.path()) == 1);
  REQUIRE(read_file(dir / "out/theirs") == "x");
}

TEST_CASE("a directory never replaces a file") {
  const TempDir dir;
  testing::write_file(dir / "out", "file");
  require_error(ErrorKind::output, "exists already", [&] { AtomicDirectory(dir / "out", {}); });
  require_error(ErrorKind::output, "found a regular file, expected a directory",
                [&] { AtomicDirectory(dir / "out", kForce); });
  REQUIRE(read_file(dir / "out") == "file");
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("a relative target and the current directory work") {
  const TempDir dir;
  const stdfs::path before = stdfs::current_path();
  stdfs::create_directory(dir / "here");
  stdfs::current_path(dir / "here");
  write_version("out", {}, "1");
  require_version(dir / "here/out", "1");
  stdfs::remove_all("out");
  write_version(".", {}, "2");
  stdfs::current_path(before);
  require_version(dir / "here", "2");
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("replacing works where directories cannot be exchanged") {
  const TempDir dir;
  FaultyFileSystem files;
  files.can_exchange = false;
  write_version(dir / "out", {}, "1");
  write_version(dir / "out", {.force = true, .file_system = &files}, "2");
  require_version(dir / "out", "2");
  REQUIRE(files.renames == 2);
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("a refused rename leaves the old directory and nothing else") {
  for (const int refused : {1, 2}) {
    const TempDir dir;
    write_version(dir / "out", {}, "1");
    FaultyFileSystem files;
    files.can_exchange = false;
    files.refused_rename = refused;
    require_error(ErrorKind::output, "cannot rename",
                  [&] { write_version(dir / "out", {.force = true, .file_system = &files}, "2"); });
    require_version(dir / "out", "1");
    REQUIRE(entry_count(dir.path()) == 1);
  }
}

TEST_CASE("a full disk leaves the old directory and nothing else") {
  for (const std::uint64_t room : {0, 1, 3}) {
    const TempDir dir;
    write_version(dir / "out", {}, "old");
    FaultyFileSystem files;
    files.bytes_until_full = room;
    require_error(ErrorKind::output, "no space left", [&] {
      write_version(dir / "out", {.force = true, .file_system = &files}, "new");
    });
    require_version(dir / "out", "old");
    REQUIRE(entry_count(dir.path()) == 1);
  }
}

TEST_CASE("a process killed before commit leaves the old directory, the next write cleans up") {
  const TempDir dir;
  write_version(dir / "out", {}, "1");
  run_until_killed([&] {
    AtomicDirectory out(dir / "out", kForce);
    out.write("a", "2");
    ::kill(::getpid(), SIGKILL);
  });
  require_version(dir / "out", "1");
  REQUIRE(entry_count(dir.path()) == 2);
  write_version(dir / "out", kForce, "3");
  require_version(dir / "out", "3");
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("a process killed at any rename of commit loses neither version") {
  for (const int number : {1, 2}) {
    for (const bool done : {false, true}) {
      INFO("rename " << number << (done ? " done" : " not done"));
      const TempDir dir;
      write_version(dir / "out", {}, "1");
      run_until_killed([&] {
        KilledAtRename files(number, done);
        write_version(dir / "out", {.force = true, .file_system = &files}, "2");
      });
      const bool new_is_in = number == 2 && done;
      // Opening the target for the next write repairs it, whether or not that write goes through.
      require_error(ErrorKind::output, "exists already", [&] { AtomicDirectory(dir / "out", {}); });
      require_version(dir / "out", new_is_in ? "2" : "1");
      REQUIRE(entry_count(dir.path()) == 1);
    }
  }
}

}  // namespace lora
