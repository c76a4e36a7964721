#include "lora/ops/save.h"

#include <limits>

#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Source {
  TempDir directory;
  std::filesystem::path output = directory / "adapter";

  SaveOptions options(const std::filesystem::path& source) const {
    SaveOptions result;
    result.source = source;
    result.output = output;
    return result;
  }

  std::filesystem::path write(const TensorMap& tensors) const {
    const auto path = directory / "state.safetensors";
    write_safetensors(path, tensors, nullptr, WriteOptions{true, nullptr});
    return path;
  }
};

// PEFT's in-memory state dict of the sample adapter on the sample base.
TensorMap in_memory(const std::string& wrapper = {}) {
  TensorMap state;
  for (const auto& [key, tensor] : sample_tensors())
    state[wrapper + key.substr(0, key.rfind(".weight")) + ".default.weight"] = tensor;
  state[wrapper + "base_model.model.fc1.base_layer.weight"] = normal_tensor("w1", {20, 10});
  state[wrapper + "base_model.model.fc1.base_layer.bias"] = normal_tensor("b1", {20});
  state[wrapper + "base_model.model.fc2.base_layer.weight"] = normal_tensor("w2", {2, 20});
  state[wrapper + "base_model.model.fc2.base_layer.bias"] = normal_tensor("b2", {2});
  return state;
}

SaveFlags all_flags() {
  SaveFlags flags;
  flags.alpha = 8;
  flags.use_rslora = false;
  flags.task = "none";
  return flags;
}

}  // namespace

TEST_CASE("a state dict of PEFT names becomes the clean adapter, the base is left out by name") {
  Source source;
  SaveOptions options = source.options(source.write(in_memory()));
  options.config = sample_config();
  options.bare = true;
  const SaveReport report = save(options);
  REQUIRE(report.left_out.size() == 4);
  REQUIRE(entry_count(source.output) == 2);
  write_sample(source.directory / "expected", sample_config(), sample_tensors());
  for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
    REQUIRE(read_file(source.output / name) == read_file(source.directory / "expected" / name));
}

TEST_CASE("two names for one tensor of an adapter are refused, and equal bytes are said to be so") {
  Source source;
  TensorMap tensors = sample_tensors();
  const std::string key = "base_model.model.fc1.lora_A.weight";
  tensors["module." + key] = normal_tensor("stale", {4, 10});
  const auto folder = source.directory / "twice";
  write_sample(folder, sample_config(), tensors);
  require_error(ErrorKind::malformed, "module." + key + " is a second name of " + key,
                [&] { save(source.options(folder)); });
  SaveOptions from_file = source.options(folder / kAdapterWeightsName);
  from_file.config = sample_config();
  require_error(ErrorKind::malformed, key + " and module." + key + " both mean",
                [&] { save(from_file); });
  REQUIRE(!std::filesystem::exists(source.output));

  tensors["module." + key] = tensors.at(key);
  write_sample(folder, sample_config(), tensors);
  for (SaveOptions options : {source.options(folder), from_file}) {
    options.write.force = true;
    options.bare = true;
    const SaveReport report = save(options);
    REQUIRE(report.notes ==
            std::vector<std::string>{"1 tensor stands in the source under a second name with equal "
                                     "bytes; each is written once"});
    REQUIRE(open_adapter(source.output).tensors.size() == 4);
  }
}

TEST_CASE("wrappers of DDP, torch.compile and FSDP are removed and named") {
  for (const std::string wrapper :
       {"module.", "_orig_mod.", "_fsdp_wrapped_module.", "module._orig_mod."}) {
    Source source;
    SaveOptions options = source.options(source.write(in_memory(wrapper)));
    options.config = sample_config();
    const SaveReport report = save(options);
    INFO(wrapper);
    REQUIRE(!report.unwrapped.empty());
    const Adapter saved = open_adapter(source.output);
    REQUIRE(saved.unclean_keys.empty());
    REQUIRE(saved.modules.size() == 2);
  }
}

TEST_CASE("plain names without a prefix and a .pth container are understood") {
  Source source;
  std::vector<std::pair<std::string, Tensor>> state;
  for (const auto& [key, tensor] : sample_tensors())
    state.emplace_back(key.substr(std::string("base_model.model.").size()), tensor);
  state.emplace_back("fc1.weight", normal_tensor("w", {20, 10}));
  const auto path = source.directory / "state.pth";
  write_file_atomically(path, WriteOptions{},
                        [&](WritableFile& file) { write_torch_file(file, state); });
  SaveOptions options = source.options(path);
  options.config = sample_config();
  const SaveReport report = save(options);
  REQUIRE(report.left_out == std::vector<std::string>{"fc1.weight"});
  REQUIRE(open_adapter(source.output).tensors.size() == 4);
}

TEST_CASE("alpha, rsLoRA and task are never guessed: all that are missing are listed") {
  Source source;
  SaveOptions options = source.options(source.write(in_memory()));
  require_error(ErrorKind::usage, "missing --alpha, --rslora or --no-rslora, --task",
                [&] { save(options); });
  options.flags = all_flags();
  options.flags.alpha.reset();
  require_error(ErrorKind::usage, "missing --alpha", [&] { save(options); });
  REQUIRE(!std::filesystem::exists(source.output));
}

TEST_CASE("ranks and targets come from the keys") {
  Source source;
  TensorMap state = in_memory();
  state["base_model.model.fc2.lora_A.default.weight"] = normal_tensor("a", {2, 20});
  state["base_model.model.fc2.lora_B.default.weight"] = normal_tensor("b", {2, 2});
  SaveOptions options = source.options(source.write(state));
  options.flags = all_flags();
  save(options);
  const Adapter saved = open_adapter(source.output);
  REQUIRE(saved.problems.empty());
  REQUIRE(saved.find("fc1")->rank == 4);
  REQUIRE(saved.find("fc2")->rank == 2);
  REQUIRE(saved.find("fc1")->scaling == Approx(2));
  REQUIRE(saved.find("fc2")->scaling == Approx(4));
}

TEST_CASE("short target names are written only where they select exactly the adapted modules") {
  Source source;
  TensorMap state;
  for (const char* layer : {"layers.0.", "layers.1."}) {
    state[std::string(layer) + "q.weight"] = normal_tensor("q", {4, 4});
    state[std::string(layer) + "k.weight"] = normal_tensor("k", {4, 4});
    state[std::string(layer) + "q.lora_A.default.weight"] = normal_tensor("a", {2, 4});
    state[std::string(layer) + "q.lora_B.default.weight"] = normal_tensor("b", {4, 2});
  }
  SaveOptions options = source.options(source.write(state));
  options.flags = all_flags();
  options.write.force = true;
  save(options);
  using Names = std::vector<std::string>;
  REQUIRE(std::get<Names>(open_adapter(source.output).config.target_modules) == Names{"q"});
  state.erase("layers.1.q.lora_A.default.weight");
  state.erase("layers.1.q.lora_B.default.weight");
  options.source = source.write(state);
  save(options);
  REQUIRE(std::get<Names>(open_adapter(source.output).config.target_modules) ==
          Names{"layers.0.q"});
}

TEST_CASE("saved modules are taken from their copies, originals stay out") {
  Source source;
  TensorMap state = in_memory();
  state["base_model.model.head.modules_to_save.default.weight"] = normal_tensor("new", {3, 2});
  state["base_model.model.head.original_module.weight"] = normal_tensor("old", {3, 2});
  SaveOptions options = source.options(source.write(state));
  options.flags = all_flags();
  const SaveReport report = save(options);
  REQUIRE(report.adapter.replacements.size() == 1);
  REQUIRE(report.adapter.replacements.contains("head.weight"));
  REQUIRE(report.adapter.config.modules_to_save == std::vector<std::string>{"head"});
  REQUIRE(open_adapter(source.output).tensors.contains("base_model.model.head.weight"));
}

TEST_CASE("a state dict without LoRA weights, half pairs, empty and NaN tensors are refused") {
  Source source;
  const auto refused = [&](const TensorMap& state, std::string_view part) {
    SaveOptions options = source.options(source.write(state));
    options.config = sample_config();
    require_error(ErrorKind::malformed, part, [&] { save(options); });
    REQUIRE(!std::filesystem::exists(source.output));
  };
  refused({{"fc1.weight", normal_tensor("w", {2, 2})}}, "none of them a LoRA weight");
  TensorMap half = in_memory();
  half.erase("base_model.model.fc1.lora_B.default.weight");
  refused(half, "fc1");
  TensorMap nan = in_memory();
  const std::vector<float> bad(40, std::numeric_limits<float>::quiet_NaN());
  nan["base_model.model.fc1.lora_A.default.weight"] = Tensor::from_f32({4, 10}, bad);
  refused(nan, "not finite at element 0");
  TensorMap empty = in_memory();
  empty["base_model.model.fc1.lora_A.default.weight"] = Tensor::from_bytes(DType::f32, {0}, {});
  refused(empty, "fc1.lora_A");
}

TEST_CASE("a configuration that contradicts the tensors is refused with both ranks") {
  Source source;
  SaveOptions options = source.options(source.write(in_memory()));
  options.config = sample_config();
  options.config->rank = 16;
  try {
    save(options);
    FAIL("no error");
  } catch (const Error& error) {
    INFO(error.message());
    REQUIRE(error.message().find("16") != std::string::npos);
    REQUIRE(error.message().find("4") != std::string::npos);
  }
  REQUIRE(!std::filesystem::exists(source.output));
}

TEST_CASE("with a base the fit is checked and its identity recorded") {
  Source source;
  const Checkpoint base = sample_base(source.directory / "base");
  SaveOptions options = source.options(source.write(in_memory()));
  options.config = sample_config();
  options.base = &base;
  const SaveReport report = save(options);
  const auto manifest = read_manifest(source.output);
  REQUIRE(manifest->base_root == compute_base_lock(base, 1).root);
  REQUIRE(manifest->base_tensors.size() == 2);
  REQUIRE(report.base_root == manifest->base_root->hex());

  InitBaseOptions other;
  other.preset = "mlp";
  other.hidden_sizes = {11, 20, 2};
  other.output = source.directory / "wide";
  init_base(other);
  const Checkpoint wide = open_checkpoint((source.directory / "wide").string());
  options.base = &wide;
  options.output = source.directory / "second";
  require_error(ErrorKind::incompatible, "fc1", [&] { save(options); });
  REQUIRE(!std::filesystem::exists(options.output));
}

TEST_CASE("saving a saved adapter changes no byte of PEFT's two files") {
  Source source;
  write_sample(source.directory / "first", sample_config(), sample_tensors());
  save(source.options(source.directory / "first"));
  for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
    REQUIRE(read_file(source.output / name) == read_file(source.directory / "first" / name));
}

TEST_CASE("an existing output is kept without force, and a dry run writes nothing") {
  Source source;
  SaveOptions options = source.options(source.write(in_memory()));
  options.config = sample_config();
  options.dry_run = true;
  save(options);
  REQUIRE(!std::filesystem::exists(source.output));
  options.dry_run = false;
  save(options);
  require_error(ErrorKind::output, "exists already", [&] { save(options); });
  options.write.force = true;
  save(options);
}
