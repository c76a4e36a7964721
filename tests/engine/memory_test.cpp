#include "engine/train_fixtures.h"
#include "golden_case.h"
//
#include <new>

#include "engine/train/machine_memory.h"
#include "engine/train/memory_estimate.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

MemoryVerdict verdict_of(std::int64_t needed, AvailableMemory available) {
  MemoryEstimate estimate;
  estimate.activations = needed;
  return compare_memory(estimate, available);
}

// Runs out of memory in the middle of a step.
class Exhausted final : public FakeModel {
 public:
  using FakeModel::FakeModel;
  LossSum loss_and_gradients(const Batch& batch, double scale,
                             const StepContext& context) override {
    if (context.step == 5) throw std::bad_alloc();
    return FakeModel::loss_and_gradients(batch, scale, context);
  }
};

}  // namespace

TEST_CASE("what the machine and each control group leave is found, the least of them counts") {
  const TempDir root;
  const auto write = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root / path).parent_path());
    write_file(root / path, text);
  };
  CHECK_FALSE(available_memory(root.path()));
  write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n");
  CHECK(available_memory(root.path()) == 4000 * 1024);

  write("proc/self/cgroup", "0::/user/run\n");
  write("sys/fs/cgroup/user/run/memory.max", "max\n");
  write("sys/fs/cgroup/user/run/memory.current", "100\n");
  CHECK(available_memory(root.path()) == 4000 * 1024);
  // A limit of the group above holds as well; files that nobody reads give way.
  write("sys/fs/cgroup/user/memory.max", "1000000\n");
  write("sys/fs/cgroup/user/memory.current", "700000\n");
  CHECK(available_memory(root.path()) == 300000);
  write("sys/fs/cgroup/user/memory.stat", "anon 5\ninactive_file 50000\nactive_file 9\n");
  CHECK(available_memory(root.path()) == 350000);
  write("sys/fs/cgroup/memory.max", "1000\n");
  write("sys/fs/cgroup/memory.current", "2000\n");
  CHECK(available_memory(root.path()) == 0);

  write("proc/self/cgroup", "5:cpu:/a\n4:hugetlb,memory:/docker/x\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
  CHECK(available_memory(root.path()) == 7000);
}

TEST_CASE("a run that is too large for the memory is refused, one that may fit is warned about") {
  CHECK(require_memory(verdict_of(1000, {1000, std::nullopt}), false).empty());
  CHECK(require_memory(verdict_of(1000, {}), false).empty());
  CHECK_THAT(require_memory(verdict_of(1'100'000'000, {1'000'000'000, std::nullopt}), false),
             Catch::Contains("training needs about 1.1 GB of memory (base 0 MB, a micro-batch 1.1 "
                             "GB, adapter and optimizer 0 MB), and 1.0 GB are available; it may"));
  const MemoryVerdict large = verdict_of(9'400'000'000, {6'000'000'000, std::nullopt});
  try {
    require_memory(large, false);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::resources);
    CHECK_THAT(error.message(), Catch::Contains("9.4 GB of memory") && Catch::Contains("6.0 GB"));
    for (const char* flag :
         {"--batch-size", "--seq-len", "--checkpointing layer", "--base-dtype nf4", "--any-memory"})
      CHECK_THAT(error.hint(), Catch::Contains(flag));
  }
  CHECK_THAT(require_memory(large, true), Catch::Contains("may run out of memory"));
  CHECK_THAT(verdict_of(2000, {std::nullopt, 1000}).text, Catch::Contains("address space"));
}

TEST_CASE("the estimate shrinks with everything that the message advises") {
  const GoldenCase golden("llama_plain");
  ModelOptions options = golden.options(true);
  const MemoryEstimate whole = estimate_memory(options, 4, 128, false);
  CHECK(whole.mapped_base > 0);
  CHECK(whole.allocated_base == 0);
  CHECK(estimate_memory(options, 2, 128, false).activations < whole.activations);
  CHECK(estimate_memory(options, 4, 64, false).activations < whole.activations);
  CHECK(estimate_memory(options, 4, 128, true).activations < whole.activations);
  options.base_dtype = BaseDtype::nf4;
  const MemoryEstimate small = estimate_memory(options, 4, 128, false);
  CHECK(small.total() < whole.total());
  CHECK(small.allocated_base > 0);
  options.base_dtype = BaseDtype::native;
  options.compute = Compute::bf16;
  CHECK(estimate_memory(options, 4, 128, false).allocated_base > 0);
}

TEST_CASE("a run that runs out of memory says so and leaves nothing half-written") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  const TrainSurroundings surroundings{
      [](const ModelOptions& wanted) { return std::make_unique<Exhausted>(wanted); }};
  try {
    fixture.train(options, surroundings);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::resources);
    CHECK_THAT(error.message(),
               Catch::Contains("out of memory while training; before it began, training needed"));
    CHECK_THAT(error.hint(), Catch::Contains("--base-dtype nf4"));
  }
  CHECK_FALSE(std::filesystem::exists(options.run_dir / "adapter"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options.run_dir))
    CHECK(entry.path().filename().string().find(".lora-tmp-") == std::string::npos);
  // The last checkpoint is whole.
  CHECK(open_adapter(options.run_dir / "checkpoints/step-000004").modules.size() == 2);
}
