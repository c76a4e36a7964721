#include <sys/wait.h>
#include <unistd.h>

#include "engine/train/run_directory.h"
#include "lora/checkpoint/train_run.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::engine;
using Use = RunDirectory::Use;

namespace {

void make_run(const std::filesystem::path& path) { testing::write_file(path / "run.json", "{}"); }

}  // namespace

TEST_CASE("a run directory that never got its run.json disappears with its parents") {
  const testing::TempDir folder;
  { RunDirectory directory(folder / "a" / "run", Use::create, real_file_system()); }
  REQUIRE(testing::entry_count(folder.path()) == 0);
}

TEST_CASE("what another process put into a fresh run directory stays") {
  const testing::TempDir folder;
  {
    RunDirectory directory(folder / "run", Use::create, real_file_system());
    testing::write_file(folder / "run" / "notes.txt", "mine");
  }
  REQUIRE(testing::read_file(folder / "run" / "notes.txt") == "mine");
}

TEST_CASE("an existing run is refused without force or resume") {
  const testing::TempDir folder;
  make_run(folder / "run");
  testing::require_error(ErrorKind::output, "exists already",
                         [&] { RunDirectory(folder / "run", Use::create, real_file_system()); });
}

TEST_CASE("what a run killed before its run.json left behind is in nobody's way") {
  const testing::TempDir folder;
  for (const char* name : {".lock", "base.lock.json", ".run.json.lora-tmp-1-0"})
    testing::write_file(folder / "run" / name, "");
  { RunDirectory directory(folder / "run", Use::create, real_file_system()); }
  testing::write_file(folder / "run" / "metrics.jsonl", "");
  testing::require_error(ErrorKind::output, "exists already",
                         [&] { RunDirectory(folder / "run", Use::create, real_file_system()); });
}

TEST_CASE("force never clears a directory that is not a run") {
  const testing::TempDir folder;
  testing::write_file(folder / "home" / "thesis.tex", "text");
  testing::require_error(ErrorKind::output, "is not a run",
                         [&] { RunDirectory(folder / "home", Use::replace, real_file_system()); });
  REQUIRE(testing::read_file(folder / "home" / "thesis.tex") == "text");
}

TEST_CASE("clearing a former run leaves files that are not the run's") {
  const testing::TempDir folder;
  make_run(folder / "run");
  testing::write_file(folder / "run" / "checkpoints" / "step-000001" / "x", "x");
  testing::write_file(folder / "run" / "notes.txt", "mine");
  RunDirectory directory(folder / "run", Use::replace, real_file_system());
  directory.clear();
  REQUIRE_FALSE(std::filesystem::exists(folder / "run" / "run.json"));
  REQUIRE_FALSE(std::filesystem::exists(folder / "run" / "checkpoints"));
  REQUIRE(std::filesystem::exists(folder / "run" / "notes.txt"));
}

TEST_CASE("resuming needs a run") {
  const testing::TempDir folder;
  testing::require_error(ErrorKind::not_found, "no such directory",
                         [&] { RunDirectory(folder / "run", Use::resume, real_file_system()); });
  std::filesystem::create_directory(folder / "run");
  testing::require_error(ErrorKind::not_found, "no run.json",
                         [&] { RunDirectory(folder / "run", Use::resume, real_file_system()); });
}

TEST_CASE("a second owner is refused with the process id of the first") {
  const testing::TempDir folder;
  make_run(folder / "run");
  RunDirectory owner(folder / "run", Use::resume, real_file_system());
  for (const Use use : {Use::resume, Use::replace})
    testing::require_error(ErrorKind::output, "in use by process " + std::to_string(::getpid()),
                           [&] { RunDirectory(folder / "run", use, real_file_system()); });
}

TEST_CASE("the lock of a process that died is free") {
  const testing::TempDir folder;
  make_run(folder / "run");
  const pid_t child = ::fork();
  if (child == 0) {
    auto* leaked = new RunDirectory(folder / "run", Use::resume, real_file_system());
    ::_exit(leaked == nullptr);
  }
  int status = 1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  RunDirectory directory(folder / "run", Use::resume, real_file_system());
  REQUIRE(testing::read_file(folder / "run" / ".lock") == std::to_string(::getpid()) + "\n");
}

TEST_CASE("what a killed owner had not finished or not removed yet is gone with the next") {
  const testing::TempDir folder;
  make_run(folder / "run");
  const std::filesystem::path checkpoints = folder / "run" / "checkpoints";
  for (const char* name : {".step-000001.lora-tmp-99999999-0", "step-000002"})
    testing::write_file(checkpoints / name / "x", "x");
  testing::write_file(folder / "run" / ".adapter.lora-tmp-99999999-0" / "x", "x");
  RunDirectory directory(folder / "run", Use::resume, real_file_system());
  REQUIRE(testing::entry_count(checkpoints) == 1);
  REQUIRE_FALSE(std::filesystem::exists(folder / "run" / ".adapter.lora-tmp-99999999-0"));
}

TEST_CASE("pruning keeps the newest checkpoints") {
  const testing::TempDir folder;
  make_run(folder / "run");
  for (const std::int64_t step : {2, 10, 4, 1000000})
    testing::write_file(checkpoint_path(folder / "run", step) / "x", "x");
  RunDirectory directory(folder / "run", Use::resume, real_file_system());
  directory.prune(2);
  REQUIRE(checkpoint_steps(folder / "run") == std::vector<std::int64_t>{10, 1000000});
}
