#include <algorithm>

#include "engine/train/metrics.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::engine;

namespace {

void write_three_steps(const std::filesystem::path& path) {
  MetricsFile metrics(path);
  for (std::int64_t step = 1; step <= 3; ++step) {
    metrics.append(StepMetrics{step, 2.5, 1e-4, 0.75, 10 * step, 512.5, 1000});
    metrics.append(EvalMetrics{step, 2.25, 7});
  }
  metrics.sync();
}

std::size_t line_count(const std::filesystem::path& path) {
  const std::string text = testing::read_file(path);
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("each step and evaluation is one line with the documented fields") {
  const testing::TempDir folder;
  write_three_steps(folder / "metrics.jsonl");
  const std::string text = testing::read_file(folder / "metrics.jsonl");
  REQUIRE(text.starts_with(
      R"({"type":"step","step":1,"loss":2.5,"lr":0.0001,"grad_norm":0.75,"tokens":10,"tok_s":512.5,"rss_bytes":1000})"
      "\n"
      R"({"type":"eval","step":1,"loss":2.25,"tokens":7})"
      "\n"));
  REQUIRE(line_count(folder / "metrics.jsonl") == 6);
}

TEST_CASE("cutting keeps the steps and evaluations that a checkpoint stands for") {
  const testing::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  write_three_steps(path);
  cut_metrics(path, 2, 1);
  REQUIRE(line_count(path) == 3);
  REQUIRE(testing::read_file(path).find("\"eval\",\"step\":2") == std::string::npos);
}

TEST_CASE("a line torn by a killed process is cut off") {
  const testing::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  write_three_steps(path);
  const std::string whole = testing::read_file(path);
  testing::write_file(path, whole + R"({"type":"step","step":2,"lo)");
  cut_metrics(path, 3, 3);
  REQUIRE(testing::read_file(path) == whole);
  testing::write_file(path, whole + R"({"type":"step","step":2})");  // whole, but for its newline
  cut_metrics(path, 3, 3);
  REQUIRE(testing::read_file(path) == whole);
}

TEST_CASE("cutting a file that is not there does nothing") {
  const testing::TempDir folder;
  cut_metrics(folder / "metrics.jsonl", 3, 3);
  REQUIRE(testing::entry_count(folder.path()) == 0);
}

TEST_CASE("lines wait while the disk is full, and a checkpoint is refused until they are written") {
  if (!std::filesystem::exists("/dev/full")) return;
  MetricsFile metrics("/dev/full");
  metrics.append(EvalMetrics{});
  testing::require_error(ErrorKind::output, "/dev/full", [&] { metrics.sync(); });
}
