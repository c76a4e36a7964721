#include "engine/train_fixtures.h"
//
#include <algorithm>
#include <set>

#include "lora/adapter/manifest.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/train_run.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Log final : LogSink {
  std::vector<std::string> lines;
  void log(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  bool holds(std::string_view part) const {
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
      return line.find(part) != std::string::npos;
    });
  }
};

std::set<std::string> names_in(const std::filesystem::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.insert(entry.path().filename().string());
  return names;
}

engine::TrainSurroundings real_surroundings() { return {engine::make_model, nullptr}; }

}  // namespace

TEST_CASE("a run leaves its record, metrics, checkpoints and a complete adapter") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  const TrainReport report = fixture.train(options, real_surroundings());
  REQUIRE(names_in(options.run_dir) == std::set<std::string>{".lock", "adapter", "base.lock.json",
                                                             "checkpoints", "metrics.jsonl",
                                                             "run.json"});
  REQUIRE(names_in(report.adapter) ==
          std::set<std::string>{"adapter_config.json", "adapter_model.safetensors",
                                "lora_manifest.json", "probe.safetensors"});
  REQUIRE(names_in(checkpoint_path(options.run_dir, 8)) ==
          std::set<std::string>{"adapter_config.json", "adapter_model.safetensors",
                                "lora_manifest.json", "state.safetensors"});
  REQUIRE(report.steps == 8);
  REQUIRE(report.tokens == 32);
  REQUIRE(report.trainable_parameters == 4 * (10 + 20) + 4 * (20 + 2));
  REQUIRE(report.total_parameters == report.trainable_parameters + 200 + 20 + 40 + 2);
  REQUIRE(report.peak_rss_bytes > 1000000);

  const TrainRun run = read_train_run(options.run_dir);
  REQUIRE(run.base_root == compute_base_lock(fixture.base, 1).root);
  REQUIRE(run.base_source == options.base_source);
  REQUIRE(run.data.at(0).path == options.data.at(0));
  REQUIRE(run.config.find("lr")->as_double() == 0.01);
  REQUIRE(adapter_of_run(options.run_dir) == options.run_dir / "adapter");
}

TEST_CASE("training the real network lowers its loss and leaves the base alone") {
  const TrainFixture fixture(64);
  TrainOptions options = fixture.options("run");
  options.steps = 60;
  options.batch_size = 16;
  options.save_every = 60;
  options.lr = 0.02;
  const std::string before = read_file(fixture.folder / "base" / "model.safetensors");
  const TrainReport report = fixture.train(options, real_surroundings());
  REQUIRE(report.last_loss < 0.6 * report.first_loss);
  REQUIRE(read_file(fixture.folder / "base" / "model.safetensors") == before);
}

TEST_CASE("the manifest proves base, targets and history without paths or times") {
  const TrainFixture fixture;
  const TrainReport report = fixture.train(fixture.options("run"), real_surroundings());
  const auto manifest = read_manifest(report.adapter);
  const BaseLock lock = compute_base_lock(fixture.base, 1);
  REQUIRE(manifest->base_root == lock.root);
  REQUIRE(manifest->base_tensors.size() == 2);
  REQUIRE(manifest->base_tensors.at("fc1.weight") == lock.tensors.at("fc1.weight").digest);
  REQUIRE(manifest->scaling.at("fc2") == 2.0);
  REQUIRE(manifest->history.size() == 1);
  REQUIRE(*manifest->history[0].find("operation") == Json("train"));
  REQUIRE(*manifest->history[0].find("steps") == Json(8));
  REQUIRE(read_file(report.adapter / "lora_manifest.json").find(fixture.folder.path().string()) ==
          std::string::npos);
}

TEST_CASE("equal runs give equal bytes, another seed others") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("a");
  const auto bytes = [&](const char* run) {
    options.run_dir = fixture.folder / run;
    return read_file(fixture.train(options, real_surroundings()).adapter /
                     "adapter_model.safetensors");
  };
  const std::string first = bytes("a");
  REQUIRE(bytes("b") == first);
  options.seed = 1;
  REQUIRE(bytes("c") != first);
}

TEST_CASE("accumulated micro-batches equal one large batch") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("large");
  options.shuffle = false;
  options.batch_size = 6;
  const TrainReport large = fixture.train(options, real_surroundings());
  options.run_dir = fixture.folder / "small";
  options.batch_size = 2;
  options.grad_accum = 3;
  const TrainReport small = fixture.train(options, real_surroundings());
  REQUIRE(small.tokens == large.tokens);
  REQUIRE(small.last_loss == Approx(large.last_loss).epsilon(1e-5));
  const Adapter a = open_adapter(large.adapter);
  const Adapter b = open_adapter(small.adapter);
  for (const auto& [key, tensor] : a.tensors) {
    const std::vector<float> x = tensor.to_f32();
    const std::vector<float> y = b.tensors.at(key).to_f32();
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(x[i] == Approx(y[i]).margin(2e-5));
  }
}

TEST_CASE("only the newest checkpoints are kept") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  fixture.train(options, fake_surroundings());
  REQUIRE(checkpoint_steps(options.run_dir) == std::vector<std::int64_t>{6, 8});
  options.run_dir = fixture.folder / "all";
  options.keep = 100;
  options.save_every = 3;
  fixture.train(options, fake_surroundings());
  REQUIRE(checkpoint_steps(options.run_dir) == std::vector<std::int64_t>{3, 6, 8});
}

TEST_CASE("a run without --save-every saves ten times") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.steps = 20;
  options.save_every = 0;
  options.keep = 100;
  fixture.train(options, fake_surroundings());
  REQUIRE(checkpoint_steps(options.run_dir).size() == 10);
}

TEST_CASE("three epochs are the default, and epochs may be fractions") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.steps.reset();
  REQUIRE(fixture.train(options, fake_surroundings()).steps == 9);
  options.run_dir = fixture.folder / "half";
  options.epochs = 0.5;
  REQUIRE(fixture.train(options, fake_surroundings()).steps == 2);
}

TEST_CASE("a base with a value that is not finite is named when the loss shows it") {
  TrainFixture fixture;
  std::vector<float> values = fixture.base.tensors.at("fc1.weight").to_f32();
  values[25] = std::numeric_limits<float>::infinity();
  fixture.base.tensors["fc1.weight"] = Tensor::from_f32({20, 10}, values);
  engine::TrainSurroundings surroundings = fake_surroundings();
  surroundings.make_model = engine::make_model;
  require_error(ErrorKind::malformed, "an infinity in fc1.weight at [2, 5]",
                [&] { fixture.train(fixture.options("run"), surroundings); });
}

TEST_CASE("a loss that is not finite stops the run, names its lines and keeps the last good step") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.shuffle = false;
  require_error(ErrorKind::incompatible, "loss is \"nan\" at step 6 (micro-batch 1: ", [&] {
    fixture.train(options, fake_surroundings(nullptr, 6));
  });
  REQUIRE(checkpoint_steps(options.run_dir) == std::vector<std::int64_t>{4, 5});
  REQUIRE_FALSE(std::filesystem::exists(options.run_dir / "adapter"));
  REQUIRE(open_adapter(adapter_of_run(options.run_dir)).modules.size() == 2);
}

TEST_CASE("early stopping ends the run and its result is the best evaluation's") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.steps = 200;
  options.save_every = 1;
  options.keep = 1000;
  options.lr = 0.05;
  options.schedule = "constant";
  options.eval_data = {fixture.folder / "eval.safetensors"};
  options.eval_every = 1;
  options.early_stop = 4;
  const TrainReport report = fixture.train(options, fake_surroundings());
  REQUIRE(report.stopped_because == "early stop");
  REQUIRE(report.steps < 200);
  const auto manifest = read_manifest(report.adapter);
  const auto best = manifest->history[0].find("best_step")->as_int();
  REQUIRE(best == report.steps - 4);
  REQUIRE(read_file(report.adapter / "adapter_model.safetensors") ==
          read_file(checkpoint_path(options.run_dir, *best) / "adapter_model.safetensors"));
}

TEST_CASE("evaluations come when asked for and once at the end") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.eval_data = {fixture.folder / "eval.safetensors"};
  const auto eval_steps = [&](std::int64_t every, const char* run) {
    options.eval_every = every;
    options.run_dir = fixture.folder / run;
    std::vector<std::int64_t> steps;
    const TrainReport report =
        fixture.train(options, fake_surroundings(), {}, [&](const TrainEvent& event) {
          if (event.eval_loss) steps.push_back(event.step);
        });
    REQUIRE(report.eval_loss);
    return steps;
  };
  REQUIRE(eval_steps(0, "end") == std::vector<std::int64_t>{8});
  REQUIRE(eval_steps(3, "three") == std::vector<std::int64_t>{3, 6, 8});
  REQUIRE(eval_steps(4, "four") == std::vector<std::int64_t>{4, 8});
}

TEST_CASE("a dry run checks everything, tells the plan and writes nothing") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.dry_run = true;
  const std::size_t before = entry_count(fixture.folder.path());
  const TrainReport report = fixture.train(options, real_surroundings());
  REQUIRE(entry_count(fixture.folder.path()) == before);
  REQUIRE(report.plan.find("steps")->as_int() == 8);
  REQUIRE(report.plan.find("trainable_parameters")->as_int() == 208);
  REQUIRE(report.plan.find("warmup_steps")->as_int() == 1);
  REQUIRE(report.plan.find("memory_bytes_estimate")->as_int() == 208 * 20 + 262 * 4);
  std::filesystem::create_directory(options.run_dir);
  write_file(options.run_dir / "run.json", "{}");
  require_error(ErrorKind::output, "exists already",
                [&] { fixture.train(options, real_surroundings()); });
}

TEST_CASE("force replaces a former run only once everything has been checked") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  fixture.train(options, fake_surroundings());
  options.force = true;
  options.data = {fixture.folder / "missing.safetensors"};
  REQUIRE_THROWS_AS(fixture.train(options, fake_surroundings()), Error);
  REQUIRE(std::filesystem::exists(options.run_dir / "adapter"));
  options.data = {fixture.folder / "data.safetensors"};
  options.steps = 3;
  REQUIRE(fixture.train(options, fake_surroundings()).steps == 3);
  REQUIRE(checkpoint_steps(options.run_dir) == std::vector<std::int64_t>{2, 3});
}

TEST_CASE("an error before the first step leaves no run directory") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.data = {fixture.folder / "missing.safetensors"};
  REQUIRE_THROWS_AS(fixture.train(options, fake_surroundings()), Error);
  REQUIRE_FALSE(std::filesystem::exists(options.run_dir));
  options = fixture.options("run");
  CancelFlag cancel{true};
  Sinks sinks;
  sinks.cancel = &cancel;
  require_error(ErrorKind::interrupted, "interrupted",
                [&] { fixture.train(options, fake_surroundings(), sinks); });
  REQUIRE_FALSE(std::filesystem::exists(options.run_dir));
}

TEST_CASE("a disk that is full for a while costs checkpoints and not the run") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  FaultyFileSystem disk;
  std::vector<std::int64_t> kept;
  Log log;
  Sinks sinks;
  sinks.log = &log;
  fixture.train(options, fake_surroundings(&disk), sinks, [&](const TrainEvent& event) {
    if (event.step == 5) disk.bytes_until_full = 500;
    if (event.step != 7) return;
    kept = checkpoint_steps(options.run_dir);
    disk.bytes_until_full = std::numeric_limits<std::uint64_t>::max();
  });
  REQUIRE(kept == std::vector<std::int64_t>{2, 4});
  REQUIRE(log.holds("the checkpoint of step 6 was not written ("));
  REQUIRE(log.holds("no space left"));
  REQUIRE(log.holds("the last good checkpoint is of step 4"));
  REQUIRE(checkpoint_steps(options.run_dir) == std::vector<std::int64_t>{4, 8});
  const TrainOptions undisturbed = fixture.options("undisturbed");
  fixture.train(undisturbed, fake_surroundings());
  REQUIRE(read_file(options.run_dir / "adapter/adapter_model.safetensors") ==
          read_file(undisturbed.run_dir / "adapter/adapter_model.safetensors"));
}

TEST_CASE("a disk that stays full ends the run with the checkpoints before it") {
  const TrainFixture fixture;
  const TrainOptions options = fixture.options("run");
  FaultyFileSystem disk;
  require_error(ErrorKind::output, "no space left", [&] {
    fixture.train(options, fake_surroundings(&disk), {}, [&](const TrainEvent& event) {
      if (event.step == 5) disk.bytes_until_full = 500;
    });
  });
  REQUIRE(names_in(options.run_dir / "checkpoints") ==
          std::set<std::string>{"step-000002", "step-000004"});
  TrainOptions resumed = options;
  resumed.resume = true;
  REQUIRE(fixture.train(resumed, fake_surroundings()).steps == 8);
}

TEST_CASE("a refused rename of the result leaves the checkpoints and no adapter") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.steps = 1;
  for (int refused = 1; refused <= 4; ++refused) {
    options.run_dir = fixture.folder / ("run" + std::to_string(refused));
    FaultyFileSystem disk;
    disk.refused_rename = refused;
    require_error(ErrorKind::output, "cannot rename",
                  [&] { fixture.train(options, fake_surroundings(&disk)); });
    REQUIRE_FALSE(std::filesystem::exists(options.run_dir / "adapter"));
    REQUIRE(checkpoint_steps(options.run_dir).size() == (refused == 4 ? 1 : 0));
    REQUIRE(std::filesystem::exists(options.run_dir) == (refused > 2));
  }
}

TEST_CASE("a base changed while training is an error that names the tensors") {
  TrainFixture fixture;
  std::vector<std::byte> bytes(sizeof(float) * 40, std::byte{1});
  std::byte* writable = bytes.data();
  fixture.base.tensors["fc2.weight"] = Tensor::from_bytes(DType::f32, {2, 20}, std::move(bytes));
  require_error(ErrorKind::internal, "1 changed (fc2.weight)", [&] {
    fixture.train(fixture.options("run"), fake_surroundings(), {},
                  [&](const TrainEvent&) { writable[0] = std::byte{2}; });
  });
}

TEST_CASE("without targets an mlp lists its layers") {
  TrainFixture fixture;
  fixture.config.target_modules = std::monostate{};
  require_error(ErrorKind::usage, "its layers are fc1, fc2",
                [&] { fixture.train(fixture.options("run"), fake_surroundings()); });
}

TEST_CASE("targets that match nothing list the names there are") {
  TrainFixture fixture;
  fixture.config.target_modules = std::vector<std::string>{"q_proj"};
  require_error(ErrorKind::incompatible, "fc1",
                [&] { fixture.train(fixture.options("run"), fake_surroundings()); });
}

TEST_CASE("a model that cannot train anything is refused") {
  const TrainFixture fixture;
  struct Frozen final : engine::Model {
    engine::FlatParameters flat;
    std::vector<ParameterInfo> parameters() const override { return {}; }
    TensorMap forward(const TensorMap&) override { return {}; }
    void enable_adapters(bool) override {}
    std::vector<std::int64_t> generate(const std::vector<std::int64_t>&,
                                       const GenerateOptions&) override {
      return {};
    }
    engine::FlatParameters& trainable() override { return flat; }
    engine::LossSum loss_and_gradients(const engine::Batch&, double,
                                       const engine::StepContext&) override {
      return {};
    }
    engine::LossSum loss(const engine::Batch&) override { return {}; }
    void set_layer_checkpointing(bool) override {}
  };
  require_error(ErrorKind::incompatible, "0 trainable parameters", [&] {
    fixture.train(fixture.options("run"),
                  {[](const ModelOptions&) { return std::make_unique<Frozen>(); }, nullptr});
  });
}

TEST_CASE("data that the base cannot take is refused by file") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  write_safetensors(fixture.folder / "wide.safetensors",
                    {{"x", random_tensor({4, 11}, 1)}, {"y", random_tensor({4, 2}, 2)}}, nullptr,
                    {});
  options.data = {fixture.folder / "wide.safetensors"};
  require_error(ErrorKind::incompatible, "x is [4, 11], the base expects [rows, 10]",
                [&] { fixture.train(options, fake_surroundings()); });
  const std::vector<std::int64_t> classes{0, 1, 2, 0};
  write_safetensors(fixture.folder / "classes.safetensors",
                    {{"x", random_tensor({4, 10}, 1)}, {"y", Tensor::from_i64({4}, classes)}},
                    nullptr, {});
  options.data = {fixture.folder / "classes.safetensors"};
  require_error(ErrorKind::incompatible, "class 2 in row 2",
                [&] { fixture.train(options, fake_surroundings()); });
  write_file(fixture.folder / "ids.jsonl", "{\"input_ids\": [1, 2, 3]}\n");
  options.data = {fixture.folder / "ids.jsonl"};
  require_error(ErrorKind::incompatible, "sequences of tokens",
                [&] { fixture.train(options, fake_surroundings()); });
}

TEST_CASE("a saved adapter is continued and its history kept") {
  const TrainFixture fixture;
  const TrainReport first = fixture.train(fixture.options("first"), real_surroundings());
  const Adapter adapter = open_adapter(first.adapter);
  TrainOptions options = fixture.options("second");
  options.adapter_config = nullptr;
  options.initial_adapter = &adapter;
  const TrainReport second = fixture.train(options, real_surroundings());
  REQUIRE(second.first_loss < first.first_loss);
  const auto manifest = read_manifest(second.adapter);
  REQUIRE(manifest->history.size() == 2);
  REQUIRE(read_file(second.adapter / "adapter_config.json") ==
          read_file(first.adapter / "adapter_config.json"));
  REQUIRE(read_train_run(options.run_dir).initial_adapter->path == first.adapter);
}

TEST_CASE("the single warm-up step of a one-step run is said aloud") {
  const TrainFixture fixture;
  TrainOptions options = fixture.options("run");
  options.steps = 1;
  Log log;
  Sinks sinks;
  sinks.log = &log;
  fixture.train(options, fake_surroundings(), sinks);
  REQUIRE(log.holds("learning rate of 0"));
}

TEST_CASE("target entries without a module are said aloud") {
  TrainFixture fixture;
  fixture.config.target_modules = std::vector<std::string>{"fc1", "fc9"};
  Log log;
  Sinks sinks;
  sinks.log = &log;
  fixture.train(fixture.options("run"), fake_surroundings(), sinks);
  REQUIRE(log.holds("'fc9' matches no module"));
}
