#include "engine/run_comparison.h"
//
#include <algorithm>

#include "lora/checkpoint/train_run.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("an interrupted and resumed run gives the bytes and metrics of an uninterrupted one") {
  const TrainFixture fixture;
  TrainOptions straight = fixture.options("straight");
  straight.grad_accum = 2;
  straight.eval_data = {fixture.folder / "eval.safetensors"};
  straight.eval_every = 3;
  TrainOptions broken = straight;
  broken.run_dir = fixture.folder / "broken";
  for (const bool real : {false, true}) {
    for (const std::int64_t stop : {1, 3, 6, 7}) {
      INFO("real model " << real << ", stopped after step " << stop);
      engine::TrainSurroundings surroundings = fake_surroundings();
      if (real) surroundings.make_model = engine::make_model;
      straight.force = broken.force = true;
      const TrainReport whole = fixture.train(straight, surroundings);
      const TrainReport part = interrupt_after(fixture, broken, surroundings, stop);
      REQUIRE(part.stopped_because == "interrupted");
      REQUIRE(part.steps == stop);
      REQUIRE(part.adapter == checkpoint_path(broken.run_dir, stop));
      REQUIRE_FALSE(std::filesystem::exists(broken.run_dir / "adapter"));
      const TrainReport rest = fixture.train(resuming(broken), surroundings);
      REQUIRE(rest.stopped_because.empty());
      REQUIRE(rest.steps == 8);
      REQUIRE(rest.tokens == whole.tokens);
      REQUIRE(rest.first_loss == whole.first_loss);
      REQUIRE(rest.last_loss == whole.last_loss);
      require_equal_results(straight.run_dir, broken.run_dir);
    }
  }
}

TEST_CASE("a resumed run knows what its initialisation took out of the base") {
  const TrainFixture fixture;
  engine::TrainSurroundings surroundings = fake_surroundings();
  surroundings.make_model = engine::make_model;
  for (const char* init : {"pissa", "pissa_niter_1", "olora"}) {
    TrainOptions straight = fixture.options("straight");
    straight.init = init;
    straight.force = true;
    AdapterConfig config = fixture.config;
    config.rank = 2;
    straight.adapter_config = &config;
    TrainOptions broken = straight;
    broken.run_dir = fixture.folder / "broken";
    fixture.train(straight, surroundings);
    REQUIRE(interrupt_after(fixture, broken, surroundings, 3).steps == 3);
    const TensorMap state =
        read_safetensors(checkpoint_path(broken.run_dir, 3) / "state.safetensors").tensors;
    REQUIRE(state.contains("first.base_model.model.fc1.lora_A.weight"));
    fixture.train(resuming(broken), surroundings);
    require_equal_results(straight.run_dir, broken.run_dir);
  }
}

TEST_CASE("a killed run resumes from its last checkpoint and repeats the lost steps") {
  const TrainFixture fixture;
  fixture.train(fixture.options("straight"), fake_surroundings());
  struct Killed {};
  const TrainOptions options = fixture.options("killed");
  try {
    fixture.train(options, fake_surroundings(), {}, [](const TrainEvent& event) {
      if (event.step == 5) throw Killed{};
    });
  } catch (const Killed&) {
  }
  REQUIRE(checkpoint_steps(options.run_dir).back() == 4);
  REQUIRE(comparable_metrics(options.run_dir).size() == 5);
  fixture.train(resuming(options), fake_surroundings());
  require_equal_results(fixture.folder / "straight", options.run_dir);
}

TEST_CASE("a run killed before its last pruning is pruned when it is resumed") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  fixture.train(options, fake_surroundings());
  const std::vector<std::int64_t> steps = checkpoint_steps(options.run_dir);
  const std::filesystem::path older = checkpoint_path(options.run_dir, steps.front() - 1);
  write_file(older / "lora_manifest.json", "{}");
  write_file(options.run_dir / "checkpoints" / ".step-000001.lora-tmp-99999999-0" / "state", "x");
  REQUIRE(fixture.train(resuming(options), fake_surroundings()).steps == 8);
  REQUIRE(checkpoint_steps(options.run_dir) == steps);
  REQUIRE(entry_count(options.run_dir / "checkpoints") == steps.size());
}

TEST_CASE("a run killed before its first checkpoint starts again from the recorded settings") {
  const TrainFixture fixture;
  fixture.train(fixture.options("straight"), fake_surroundings());
  struct Killed {};
  const TrainOptions options = fixture.options("killed");
  try {
    fixture.train(options, fake_surroundings(), {}, [](const TrainEvent&) { throw Killed{}; });
  } catch (const Killed&) {
  }
  REQUIRE(checkpoint_steps(options.run_dir).empty());
  fixture.train(resuming(options), fake_surroundings());
  require_equal_results(fixture.folder / "straight", options.run_dir);
}

TEST_CASE(
    "k steps and then more equal all steps at once where the schedule does not depend on them") {
  const TrainFixture fixture;
  TrainOptions straight = fixture.options("straight");
  straight.schedule = "constant";
  straight.warmup = 0;
  straight.eval_data = {fixture.folder / "eval.safetensors"};
  TrainOptions grown = straight;
  grown.run_dir = fixture.folder / "grown";
  grown.steps = 3;
  fixture.train(straight, fake_surroundings());
  fixture.train(grown, fake_surroundings());
  TrainOptions more = resuming(grown);
  more.steps = 8;
  fixture.train(more, fake_surroundings());
  require_equal_results(straight.run_dir, grown.run_dir);
  REQUIRE(read_train_run(grown.run_dir).total_steps == 8);
}

TEST_CASE("resuming a finished run changes nothing") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.eval_data = {fixture.folder / "eval.safetensors"};
  fixture.train(options, fake_surroundings());
  const std::string metrics = read_file(options.run_dir / "metrics.jsonl");
  const std::string adapter = read_file(options.run_dir / "adapter/adapter_model.safetensors");
  const TrainReport again = fixture.train(resuming(options), fake_surroundings());
  REQUIRE(again.steps == 8);
  REQUIRE(read_file(options.run_dir / "metrics.jsonl") == metrics);
  REQUIRE(read_file(options.run_dir / "adapter/adapter_model.safetensors") == adapter);
}

TEST_CASE("masters of rounded parameters survive a stop") {
  TrainFixture fixture;
  write_mlp_base(fixture.folder / "base", 1, DType::bf16);
  fixture.base = open_checkpoint((fixture.folder / "base").string());
  fixture.config.target_modules = std::vector<std::string>{"fc1"};
  fixture.config.modules_to_save = {"fc2"};
  TrainOptions straight = fixture.options("straight");
  straight.lr = 1e-4;  // below what bf16 can resolve in one step
  TrainOptions broken = straight;
  broken.run_dir = fixture.folder / "broken";
  fixture.train(straight, fake_surroundings());
  interrupt_after(fixture, broken, fake_surroundings(), 5);
  fixture.train(resuming(broken), fake_surroundings());
  require_equal_results(straight.run_dir, broken.run_dir);
  const Adapter adapter = open_adapter(straight.run_dir / "adapter");
  REQUIRE(adapter.replacements.at("fc2.weight").dtype == DType::bf16);
}

TEST_CASE("a resumed run refuses a base that has changed and names the tensors") {
  TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  write_mlp_base(fixture.folder / "base", 2);
  fixture.base = open_checkpoint((fixture.folder / "base").string());
  require_error(ErrorKind::incompatible, "fc1.weight",
                [&] { fixture.train(resuming(options), fake_surroundings()); });
}

TEST_CASE("a resumed run refuses data that has changed and names the file") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  write_table(fixture.folder / "data.safetensors", 12, 50);
  require_error(ErrorKind::incompatible, "data.safetensors",
                [&] { fixture.train(resuming(options), fake_surroundings()); });
}

TEST_CASE("flags that conflict with the recorded run are all listed") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  TrainOptions resumed = resuming(options);
  resumed.lr = 0.5;
  resumed.batch_size = 2;
  resumed.given = {"lr", "batch_size", "seed"};
  require_error(ErrorKind::usage, "--batch-size 2 (the run has 4), --lr 0.5 (the run has 0.01)",
                [&] { fixture.train(resumed, fake_surroundings()); });
  AdapterConfig other = fixture.config;
  other.rank = 16;
  resumed.given = {"rank"};
  resumed.adapter_config = &other;
  require_error(ErrorKind::usage, "--rank 16 (the run has 4)",
                [&] { fixture.train(resumed, fake_surroundings()); });
}

TEST_CASE("flags that were not given do not conflict") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  TrainOptions resumed = resuming(options);
  resumed.lr = 0.5;
  resumed.adapter_config = &fixture.config;
  resumed.given = {"rank", "target_modules", "data"};
  REQUIRE(fixture.train(resumed, fake_surroundings()).steps == 8);
}

TEST_CASE("steps may grow on resume and never shrink") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  TrainOptions resumed = resuming(options);
  resumed.steps = 5;
  require_error(ErrorKind::usage, "steps may only grow",
                [&] { fixture.train(resumed, fake_surroundings()); });
}

TEST_CASE("a checkpoint whose state lost a tensor is refused by name") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  interrupt_after(fixture, options, fake_surroundings(), 3);
  const auto path = checkpoint_path(options.run_dir, 3) / "state.safetensors";
  SafetensorsFile state = read_safetensors(path);
  TensorMap tensors = state.tensors;
  tensors.erase("exp_avg.base_model.model.fc1.lora_A.weight");
  const Metadata metadata = state.metadata;
  write_safetensors(fixture.folder / "cut", tensors, &metadata, {});
  std::filesystem::rename(fixture.folder / "cut", path);
  require_error(ErrorKind::malformed, "exp_avg.base_model.model.fc1.lora_A.weight is missing",
                [&] { fixture.train(resuming(options), fake_surroundings()); });
}
