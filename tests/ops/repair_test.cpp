#include <limits>

#include "ops/repair_bench.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("several damages at once are each listed") {
  Bench bench;
  bench.write(renamed([](std::string key) {
    return "module._orig_mod.base_model.model." + key.substr(0, key.rfind('.')) + ".chat.weight";
  }));
  bench.write_config(sample_config());
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.size() == 4);
  bench.require_sample();
}

TEST_CASE("nothing to repair writes nothing unless it is asked for") {
  Bench bench;
  write_sample(bench.damaged, sample_config(), sample_tensors());
  const RepairReport report = repair(bench.options());
  REQUIRE(report.changes.empty());
  REQUIRE(!report.is_written);
  REQUIRE(entry_count(bench.directory.path()) == 1);
  RepairOptions options = bench.options();
  options.write_unchanged = true;
  REQUIRE(repair(options).is_written);
  bench.require_sample();
}

TEST_CASE("a dry run lists the changes and leaves no trace") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.dry_run = true;
  const RepairReport report = repair(options);
  REQUIRE(report.changes.size() == 1);
  REQUIRE(!report.is_written);
  REQUIRE(entry_count(bench.directory.path()) == 1);
}

TEST_CASE("an existing output is kept without force, and force repairs in place") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.output = bench.damaged;
  require_error(ErrorKind::output, "exists already", [&] { repair(options); });
  options.write.force = true;
  REQUIRE(repair(options).is_written);
  REQUIRE(open_adapter(bench.damaged).unclean_keys.empty());
}

TEST_CASE("a pickle becomes safetensors; empty and second containers are left out with a word") {
  Bench pickle;
  pickle.write_pickle(sample_tensors(), kAdapterPickleName);
  pickle.write_config(sample_config());
  REQUIRE(has_change(repair(pickle.options()), "adapter_model.bin", "adapter_model.safetensors"));
  pickle.require_sample();

  Bench empty;
  empty.write_pickle(sample_tensors(), kAdapterPickleName);
  empty.write_config(sample_config());
  write_file(empty.damaged / kAdapterWeightsName, "");
  REQUIRE(has_change(repair(empty.options()), "adapter_model.safetensors (0 bytes)", "left out"));
  empty.require_sample();

  Bench twin;
  twin.write_pickle(sample_tensors(), kAdapterPickleName);
  twin.write(sample_tensors());
  twin.write_config(sample_config());
  const RepairReport equal = repair(twin.options());
  REQUIRE(has_change(equal, "adapter_model.bin", "left out"));
  REQUIRE(equal.notes.empty());
  twin.require_sample();
  twin.write_pickle(sample_tensors(2), kAdapterPickleName);
  RepairOptions again = twin.options();
  again.dry_run = true;
  REQUIRE(repair(again).notes.at(0).find("holds other tensors") != std::string::npos);
}

TEST_CASE("a single weights file of another name is taken, of two one must be given") {
  Bench bench;
  bench.write(sample_tensors(), "pytorch_lora.safetensors");
  bench.write_config(sample_config());
  write_file(bench.damaged / "optimizer.pt", "state");
  const RepairReport report = repair(bench.options());
  REQUIRE(has_change(report, "pytorch_lora.safetensors", "adapter_model.safetensors"));
  REQUIRE(report.left_behind == Names{"optimizer.pt"});
  bench.require_sample();
  bench.write(sample_tensors(2), "second.safetensors");
  RepairOptions options = bench.options();
  options.output = bench.directory / "other";
  require_error(ErrorKind::usage, "several files that may be the weights",
                [&] { repair(options); });
  options.adapter = bench.damaged / "second.safetensors";
  REQUIRE(repair(options).is_written);
}

TEST_CASE("tokenizer and model card come along") {
  Bench bench;
  bench.write(renamed([](std::string key) { return "module." + key; }));
  bench.write_config(sample_config());
  write_file(bench.damaged / "README.md", "card");
  write_file(bench.damaged / "tokenizer.json", "{}");
  REQUIRE(repair(bench.options()).carried == Names{"README.md", "tokenizer.json"});
  REQUIRE(read_file(bench.output / "README.md") == "card");
}

TEST_CASE("what is lost is refused: NaN, no elements, half pairs, cut files") {
  const auto refused = [](const std::string& key, const Tensor* tensor, std::string_view part) {
    Bench bench;
    TensorMap tensors = sample_tensors();
    if (tensor == nullptr) {
      tensors.erase(key);
    } else {
      tensors[key] = *tensor;
    }
    bench.write(tensors);
    bench.write_config(sample_config());
    bench.require_refused(bench.options(), ErrorKind::malformed, part);
  };
  const std::vector<float> bad(40, std::numeric_limits<float>::quiet_NaN());
  const Tensor nan = Tensor::from_f32({4, 10}, bad);
  const Tensor empty = Tensor::from_bytes(DType::f32, {0}, {});
  refused(clean("fc1.lora_A.weight"), &nan, "not finite: base_model.model.fc1.lora_A.weight");
  refused(clean("fc1.lora_A.weight"), &empty, "hold no elements");
  refused(clean("fc1.lora_B.weight"), nullptr, "has no counterpart");

  Bench cut;
  cut.write(sample_tensors());
  cut.write_config(sample_config());
  const std::string whole = read_file(cut.damaged / kAdapterWeightsName);
  write_file(cut.damaged / kAdapterWeightsName, whole.substr(0, whole.size() - 5));
  try {
    repair(cut.options());
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::malformed);
    REQUIRE(error.hint().find("cannot be brought back") != std::string::npos);
  }
  Bench nothing;
  std::filesystem::create_directories(nothing.damaged);
  nothing.require_refused(nothing.options(), ErrorKind::malformed, "found no weights");
}

TEST_CASE(
    "values that the manifest does not record are refused; recorded ones keep their history") {
  Bench bench;
  const Checkpoint base = sample_base(bench.directory / "base");
  write_sample(bench.damaged, sample_config(), sample_tensors(), &base);
  bench.write(renamed([](std::string key) { return "_orig_mod." + key; }));
  repair(bench.options());
  const auto manifest = read_manifest(bench.output);
  REQUIRE(manifest->base_root == compute_base_lock(base, 1).root);
  REQUIRE(*manifest->history.back().find("operation") == Json("repair"));
  bench.write(sample_tensors(9));
  RepairOptions options = bench.options();
  options.output = bench.directory / "second";
  require_error(ErrorKind::malformed, "not those that lora_manifest.json records",
                [&] { repair(options); });
}

TEST_CASE("a dtype is cast on request only, and overflow is an error") {
  Bench bench;
  bench.write(sample_tensors());
  bench.write_config(sample_config());
  RepairOptions options = bench.options();
  options.dtype = DType::bf16;
  REQUIRE(has_change(repair(options), "F32 in 4 tensors", "BF16"));
  REQUIRE(open_adapter(bench.output).find("fc1")->a.dtype == DType::bf16);
  TensorMap large = sample_tensors();
  large[clean("fc2.lora_B.weight")] = Tensor::from_f32({2, 4}, std::vector<float>(8, 70000.0F));
  bench.write(large);
  options.dtype = DType::f16;
  options.output = bench.directory / "second";
  require_error(ErrorKind::incompatible, "fc2.lora_B.weight holds 70000 at element 0",
                [&] { repair(options); });
}
