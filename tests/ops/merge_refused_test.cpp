// What merge refuses, by name and without a trace.
#include <limits>

#include "ops/written_merge.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("values that are not finite are refused by name, and nothing is left") {
  const float bad = std::numeric_limits<float>::quiet_NaN();
  ShardedSample sample(DType::f32);
  const auto with = [&](Tensor tensor) {
    std::vector<float> values = tensor.to_f32();
    values[3] = bad;
    return Tensor::from_f32(tensor.shape, values);
  };
  for (const char* name : {"up.weight", "norm.weight"}) {
    const Tensor kept = sample.base.at(name);
    sample.base[name] = with(kept);
    sample.write_base();
    const Error error = failure_of([&] { sample.run(); });
    REQUIRE(error.kind() == ErrorKind::malformed);
    REQUIRE(error.tensor() == name);
    sample.base[name] = kept;
    sample.write_base();
  }
  const std::string key = "base_model.model.up.lora_A.weight";
  sample.adapter[key] = with(sample.adapter.at(key));
  write_sample(sample.adapter_folder, sample.config, sample.adapter);
  const Error error = failure_of([&] { sample.run(); });
  REQUIRE(error.message().find(key) != std::string::npos);
  REQUIRE(entries(sample.directory.path()) == 2);
}

TEST_CASE("an existing output is up to date, stale or foreign") {
  ShardedSample sample;
  const auto state = [&](const MergeOptions& options = {}) {
    const Error error = failure_of([&] { sample.run(options); });
    REQUIRE(error.kind() == ErrorKind::output);
    return error.message().substr(error.message().find("exists and is ") + 14);
  };
  sample.run();
  REQUIRE(state() == "up to date");
  MergeOptions safe;
  safe.is_safe_merge = true;
  REQUIRE(state(safe) == "stale: a merge of other inputs or with other settings");
  sample.adapter = MergeSample::factors(9);
  write_sample(sample.adapter_folder, sample.config, sample.adapter);
  REQUIRE(state() == "stale: a merge of other inputs or with other settings");
  MergeOptions force;
  force.force = true;
  sample.run(force);
  REQUIRE(state() == "up to date");
  TensorMap tensors = read_safetensors(sample.output / "model-00001-of-00002.safetensors").tensors;
  tensors["norm.bias"] = normal_tensor("other", {24}).cast(DType::bf16);
  MergeSample::write(sample.output / "model-00001-of-00002.safetensors", tensors);
  REQUIRE(state() == "stale: its weights were changed since");
  fs::remove(sample.output / "lora_merge.json");
  REQUIRE(state().starts_with("foreign"));
  REQUIRE(failure_of([&] {
            merge_kind(sample.adapter_folder, sample.base_folder, sample.base_folder, force);
          }).kind() == ErrorKind::usage);
  REQUIRE(failure_of([&] {
            merge_kind(sample.adapter_folder, sample.base_folder, sample.directory.path(), force);
          }).kind() == ErrorKind::usage);
}

TEST_CASE("a disk that fills up at any byte of a merge leaves nothing") {
  ShardedSample sample;
  FaultyFileSystem counting;
  MergeOptions options;
  options.file_system = &counting;
  sample.run(options);
  const std::uint64_t all = std::numeric_limits<std::uint64_t>::max() - counting.bytes_until_full;
  fs::remove_all(sample.output);
  for (std::uint64_t bytes = 0; bytes < all; bytes += all / 23 + 1) {
    FaultyFileSystem full;
    full.bytes_until_full = bytes;
    options.file_system = &full;
    REQUIRE(failure_of([&] { sample.run(options); }).kind() == ErrorKind::output);
    REQUIRE(entries(sample.directory.path()) == 2);
  }
  FaultyFileSystem refusing;
  refusing.refused_rename = 1;
  options.file_system = &refusing;
  REQUIRE(failure_of([&] { sample.run(options); }).kind() == ErrorKind::output);
  REQUIRE(entries(sample.directory.path()) == 2);
}

TEST_CASE("a cancelled merge and a dry run write nothing") {
  ShardedSample sample;
  MergeOptions options;
  options.dry_run = true;
  const MergeReport report = sample.run(options);
  REQUIRE(report.weights.size() == 2);
  REQUIRE(report.weight_bytes == 2 * (24 * 40 + 24 * 24 + 48));
  REQUIRE(!report.root);
  const Checkpoint from = open_checkpoint(sample.base_folder.string());
  MergeOptions cancelled;
  cancelled.base = &from;
  cancelled.adapters.push_back({open_adapter(sample.adapter_folder), 1});
  cancelled.output = sample.output;
  const CancelFlag flag{true};
  Sinks sinks;
  sinks.cancel = &flag;
  REQUIRE(failure_of([&] { merge(cancelled, sinks); }).kind() == ErrorKind::interrupted);
  REQUIRE(entries(sample.directory.path()) == 2);
}

TEST_CASE("quantised bases and adapters for another base are refused by name") {
  ShardedSample sample;
  write_file(sample.base_folder / "config.json",
             R"({"model_type": "toy", "quantization_config": {"quant_method": "gptq"}})");
  const Error error = failure_of([&] { sample.run(); });
  REQUIRE(error.kind() == ErrorKind::unsupported);
  REQUIRE(error.message().find("gptq") != std::string::npos);

  const TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  const Checkpoint other = sample_base(directory / "other", 1);
  write_sample(directory / "adapter", sample_config(), sample_tensors(), &base);
  const auto run = [&](bool any_base) {
    MergeOptions options;
    options.any_base = any_base;
    return merge_kind(directory / "adapter", directory / "other", directory / "out", options);
  };
  REQUIRE(failure_of([&] { run(false); }).kind() == ErrorKind::incompatible);
  run(true);
}

TEST_CASE("two adapters meet in one stack of experts; DoRA beside another update is refused") {
  const fs::path adapters = golden("kinds") / "adapters", bases = golden("kinds") / "bases";
  const TempDir directory;
  const Checkpoint from = open_checkpoint((bases / "experts").string());
  MergeOptions halves;
  halves.base = &from;
  halves.adapters = {{open_adapter(adapters / "experts"), 0.5},
                     {open_adapter(adapters / "experts"), 0.5}};
  halves.output = directory / "halves";
  merge(halves);
  merge_kind(adapters / "experts", bases / "experts", directory / "whole");
  const TensorMap a = open_checkpoint(halves.output.string()).tensors;
  for (const auto& [name, tensor] : open_checkpoint((directory / "whole").string()).tensors) {
    const std::vector<float> x = a.at(name).to_f32(), y = tensor.to_f32();
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::abs(x[i] - y[i]) <= 0x1p-21F);
  }

  const Checkpoint mlp = open_checkpoint((bases / "mlp").string());
  MergeOptions mixed;
  mixed.base = &mlp;
  mixed.adapters = {{open_adapter(adapters / "linear_dora"), 1},
                    {open_adapter(adapters / "linear"), 1}};
  mixed.output = directory / "mixed";
  const Error error = failure_of([&] { merge(mixed); });
  REQUIRE(error.kind() == ErrorKind::unsupported);
  REQUIRE(error.message().find("DoRA on a weight that another adapter changes too") !=
          std::string::npos);
  REQUIRE(entries(directory.path()) == 2);
}
