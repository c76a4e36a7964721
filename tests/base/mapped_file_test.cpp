#include "lora/base/mapped_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

TEST_CASE("a mapped file shows its bytes") {
  const testing::TempDir dir;
  testing::write_file(dir / "x", "content");
  const auto file = MappedFile::open(dir / "x");
  REQUIRE(text_of(*file) == "content");
  REQUIRE(file->path() == dir / "x");
}

TEST_CASE("a mapped file survives that its name is replaced") {
  const testing::TempDir dir;
  testing::write_file(dir / "x", "old");
  testing::write_file(dir / "y", "new");
  const auto file = MappedFile::open(dir / "x");
  std::filesystem::rename(dir / "y", dir / "x");
  REQUIRE(text_of(*file) == "old");
}

TEST_CASE("an empty file maps to no bytes") {
  const testing::TempDir dir;
  testing::write_file(dir / "x", "");
  REQUIRE(MappedFile::open(dir / "x")->bytes().empty());
}

TEST_CASE("a missing file is not found") {
  const testing::TempDir dir;
  testing::write_file(dir / "x", "");
  for (const auto& path : {dir / "none", dir / "x/below", std::filesystem::path("")})
    require_error(ErrorKind::not_found, "no such file", [&] { MappedFile::open(path); });
}

TEST_CASE("a directory or pipe is refused without waiting") {
  const testing::TempDir dir;
  require_error(ErrorKind::malformed, "found a directory, expected a regular file",
                [&] { MappedFile::open(dir.path()); });
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  require_error(ErrorKind::malformed, "found a special file, expected a regular file",
                [&] { MappedFile::open(dir / "pipe"); });
  require_error(ErrorKind::malformed, "found a special file",
                [&] { MappedFile::open("/dev/null"); });
}

TEST_CASE("dropped pages can be read again") {
  const testing::TempDir dir;
  const std::string content(100'000, 'x');
  testing::write_file(dir / "x", content);
  const auto file = MappedFile::open(dir / "x");
  REQUIRE(text_of(*file) == content);
  file->drop(0, content.size());
  file->drop(5, 20'000);
  file->drop(content.size(), 0);
  file->drop(0, content.size() * 10);
  REQUIRE(text_of(*file) == content);
}

}  // namespace lora
