#include <sys/stat.h>
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

}  // namespace

TEST_CASE("a file appears whole, with missing parents made") {
  const TempDir dir;
  write_file_atomically(dir / "a/b/x", "content", {});
  REQUIRE(read_file(dir / "a/b/x") == "content");
  REQUIRE(entry_count(dir / "a/b") == 1);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  REQUIRE((static_cast<unsigned>(stdfs::status(dir / "a/b/x").permissions()) & 0777U) ==
          (0666U & ~mask));
}

TEST_CASE("a file is replaced only with force") {
  const TempDir dir;
  testing::write_file(dir / "x", "old");
  require_error(ErrorKind::output, "exists already",
                [&] { write_file_atomically(dir / "x", "new", {}); });
  REQUIRE(read_file(dir / "x") == "old");
  write_file_atomically(dir / "x", "new", kForce);
  REQUIRE(read_file(dir / "x") == "new");
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("force never turns a directory, pipe or device into a file") {
  const TempDir dir;
  stdfs::create_directory(dir / "d");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  require_error(ErrorKind::output, "found a directory, expected a regular file",
                [&] { write_file_atomically(dir / "d", "new", kForce); });
  require_error(ErrorKind::output, "found a special file",
                [&] { write_file_atomically(dir / "pipe", "new", kForce); });
  require_error(ErrorKind::output, "found a special file",
                [&] { write_file_atomically("/dev/null", "new", kForce); });
  REQUIRE(stdfs::is_directory(dir / "d"));
  REQUIRE(stdfs::is_fifo(dir / "pipe"));
}

TEST_CASE("a failed write leaves the old file and nothing else") {
  const TempDir dir;
  testing::write_file(dir / "x", "old");
  const auto fails = [&](FaultyFileSystem& files, const char* part) {
    require_error(ErrorKind::output, part, [&] {
      write_file_atomically(dir / "x", "new content", {.force = true, .file_system = &files});
    });
    REQUIRE(read_file(dir / "x") == "old");
    REQUIRE(entry_count(dir.path()) == 1);
  };
  FaultyFileSystem full;
  full.bytes_until_full = 4;
  fails(full, "no space left");
  FaultyFileSystem read_only;
  read_only.refuses_create = true;
  fails(read_only, "cannot create");
  FaultyFileSystem no_sync;
  no_sync.refuses_sync = true;
  fails(no_sync, "cannot flush");
  FaultyFileSystem no_rename;
  no_rename.refused_rename = 1;
  fails(no_rename, "cannot rename");
}

TEST_CASE("a failed write removes the parents it made, and only those") {
  const TempDir dir;
  stdfs::create_directory(dir / "mine");
  FaultyFileSystem full;
  full.bytes_until_full = 0;
  require_error(ErrorKind::output, "no space left",
                [&] { write_file_atomically(dir / "mine/a/b/x", "new", {.file_system = &full}); });
  REQUIRE(entry_count(dir.path()) == 1);
  REQUIRE(entry_count(dir / "mine") == 0);
  // Someone else used the new folder meanwhile.
  require_error(ErrorKind::internal, "stop", [&] {
    write_file_atomically(dir / "a/b/x", {}, [&](WritableFile&) {
      testing::write_file(dir / "a/other", "theirs");
      throw Error(ErrorKind::internal, "stop");
    });
  });
  REQUIRE(read_file(dir / "a/other") == "theirs");
  REQUIRE(entry_count(dir / "a") == 1);
}

TEST_CASE("a parent that is a file is reported, with nothing made") {
  const TempDir dir;
  testing::write_file(dir / "f", "x");
  require_error(ErrorKind::output, "cannot create directory",
                [&] { write_file_atomically(dir / "f/a/x", "new", {}); });
  REQUIRE(entry_count(dir.path()) == 1);
}

TEST_CASE("the real file system reports a full device and a read-only folder") {
  if (stdfs::exists("/dev/full")) {
    const auto file = real_file_system().create("/dev/full");
    const std::string text(100, 'x');
    require_error(ErrorKind::output, "No space left",
                  [&] { file->write(std::as_bytes(std::span(text))); });
  }
  require_error(ErrorKind::output, "cannot create",
                [] { real_file_system().create("/proc/none/x"); });
}

TEST_CASE("leftovers of a dead process go with the next write, those of a living one stay") {
  const TempDir dir;
  const pid_t child = ::fork();
  if (child == 0) {
    // Dies in the middle of writing, as with kill -9.
    write_file_atomically(dir / "x", {}, [&](WritableFile& file) {
      file.write(std::as_bytes(std::span("half", 4)));
      ::kill(::getpid(), SIGKILL);
    });
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(entry_count(dir.path()) == 1);
  REQUIRE_FALSE(stdfs::exists(dir / "x"));
  const std::string living = ".x.lora-tmp-" + std::to_string(::getppid()) + "-0";
  testing::write_file(dir / living, "");
  testing::write_file(dir / ".x.lora-tmp-notes", "");
  testing::write_file(dir / ".y.lora-tmp-999999999-0", "");
  write_file_atomically(dir / "x", "new", {});
  REQUIRE(read_file(dir / "x") == "new");
  REQUIRE(entry_count(dir.path()) == 4);
  REQUIRE(stdfs::exists(dir / living));
}

}  // namespace lora
