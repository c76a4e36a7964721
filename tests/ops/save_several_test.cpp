// Several adapters in one source, dtypes, the model card.
#include "lora/format/safetensors.h"
#include "lora/ops/save.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

// state_dict() of a live PEFT model with the adapters "default" and "second" on the sample base.
TensorMap live_model() {
  TensorMap state;
  for (const auto& [name, seed] :
       std::vector<std::pair<std::string, int>>{{"default", 1}, {"second", 2}})
    for (const auto& [key, tensor] : sample_tensors(static_cast<std::uint64_t>(seed)))
      state[key.substr(0, key.rfind('.')) + "." + name + ".weight"] = tensor;
  state["base_model.model.fc1.base_layer.weight"] = normal_tensor("w1", {20, 10});
  state["base_model.model.fc1.base_layer.bias"] = normal_tensor("b1", {20});
  state["base_model.model.fc2.base_layer.weight"] = normal_tensor("w2", {2, 20});
  return state;
}

struct Source {
  TempDir directory;
  std::filesystem::path output = directory / "out";

  SaveOptions options(const TensorMap& state) const {
    SaveOptions options;
    options.source = directory / "state.safetensors";
    options.output = output;
    options.config = sample_config();
    options.bare = true;
    write_safetensors(options.source, state, nullptr, WriteOptions{true, nullptr});
    return options;
  }

  void require_sample(const std::filesystem::path& folder, std::uint64_t seed) const {
    write_sample(directory / "expected", sample_config(), sample_tensors(seed));
    for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
      REQUIRE(read_file(folder / name) == read_file(directory / "expected" / name));
  }
};

}  // namespace

TEST_CASE("of several adapters one must be named, and the error lists them") {
  Source source;
  SaveOptions options = source.options(live_model());
  require_error(ErrorKind::usage, "the adapters default, second", [&] { save(options); });
  options.adapter_name = "third";
  require_error(ErrorKind::usage, "expected one called third", [&] { save(options); });
  REQUIRE(!std::filesystem::exists(source.output));
  options.adapter_name = "second";
  const SaveReport report = save(options);
  REQUIRE(report.adapter_name == "second");
  REQUIRE(report.left_out.size() == 7);
  source.require_sample(source.output, 2);
}

TEST_CASE("every adapter is saved as PEFT lays them out, and the layout can be read again") {
  Source source;
  const SaveOptions options = source.options(live_model());
  REQUIRE(save_all(options).size() == 2);
  source.require_sample(source.output, 1);
  source.require_sample(source.output / "second", 2);

  SaveOptions again = options;
  again.config.reset();
  again.source = source.output;
  again.output = source.directory / "picked";
  again.adapter_name = "second";
  save(again);
  source.require_sample(again.output, 2);
  again.output = source.directory / "all";
  REQUIRE(save_all(again).size() == 2);
  source.require_sample(again.output / "second", 2);
  again.adapter_name = "third";
  again.output = source.directory / "none";
  require_error(ErrorKind::usage, "the adapters default, second", [&] { save(again); });
}

TEST_CASE("of an adapter directory whose file holds several, one must be named too") {
  Source source;
  TensorMap both = sample_tensors();
  for (const auto& [key, tensor] : sample_tensors(2))
    both[key.substr(0, key.rfind('.')) + ".second.weight"] = tensor;
  SaveOptions options;
  options.source = source.directory / "both";
  options.output = source.output;
  options.bare = true;
  write_sample(options.source, sample_config(), both);
  require_error(ErrorKind::usage, "the adapters default, second", [&] { save(options); });
  options.adapter_name = "third";
  require_error(ErrorKind::usage, "the adapters default, second", [&] { save(options); });
  REQUIRE(!std::filesystem::exists(source.output));
  for (const auto& [name, seed] :
       std::vector<std::pair<std::string, std::uint64_t>>{{"default", 1}, {"second", 2}}) {
    options.adapter_name = name;
    options.write.force = true;
    REQUIRE(save(options).left_out.size() == 4);
    source.require_sample(source.output, seed);
  }
  REQUIRE(save_all(options).size() == 2);
  source.require_sample(source.output, 1);
  source.require_sample(source.output / "second", 2);
  // A name that the one adapter of a file does not have is not its name.
  for (const auto& [key, tensor] : sample_tensors()) both.erase(key);
  write_sample(options.source, sample_config(), both);
  options.adapter_name = "default";
  require_error(ErrorKind::usage, "the adapters second, expected one called default",
                [&] { save(options); });
}

TEST_CASE("each adapter may have a configuration of its own") {
  Source source;
  TensorMap state = live_model();
  for (const char* layer : {"fc1", "fc2"}) {
    const std::string path = std::string("base_model.model.") + layer;
    state[path + ".lora_A.second.weight"] = normal_tensor("a", {2, path.ends_with("1") ? 10 : 20});
    state[path + ".lora_B.second.weight"] = normal_tensor("b", {path.ends_with("1") ? 20 : 2, 2});
  }
  SaveOptions options = source.options(state);
  require_error(ErrorKind::incompatible, "expected 4 from the configuration",
                [&] { save_all(options); });
  REQUIRE(!std::filesystem::exists(source.output));
  options.configs["second"] = sample_config();
  options.configs["second"].rank = 2;
  save_all(options);
  REQUIRE(open_adapter(source.output / "second").find("fc1")->scaling == 4);
}

TEST_CASE("a name that is no folder name leads nowhere") {
  Source source;
  TensorMap state;
  for (const auto& [key, tensor] : sample_tensors())
    state[key.substr(0, key.rfind('.')) + ".a/b.weight"] = tensor;
  const SaveOptions options = source.options(state);
  require_error(ErrorKind::unsupported, "its name is no folder name", [&] { save_all(options); });
  REQUIRE(!std::filesystem::exists(source.output));
}

TEST_CASE("a dtype is cast on request, and overflow names every tensor") {
  Source source;
  TensorMap state = sample_tensors();
  SaveOptions options = source.options(state);
  options.dtype = DType::f16;
  save(options);
  REQUIRE(open_adapter(source.output).find("fc1")->a.dtype == DType::f16);
  state["base_model.model.fc1.lora_A.weight"] =
      Tensor::from_f32({4, 10}, std::vector<float>(40, 1e6F));
  state["base_model.model.fc2.lora_B.weight"] =
      Tensor::from_f32({2, 4}, std::vector<float>(8, 65519.0F));
  options = source.options(state);
  options.dtype = DType::f16;
  options.output = source.directory / "second";
  require_error(ErrorKind::incompatible, "fc1.lora_A.weight holds 1e+06 at element 0",
                [&] { save(options); });
  options.dtype = DType::bf16;
  save(options);
}

TEST_CASE("inner modules of a streaming trainer are unwrapped where the base proves it") {
  Source source;
  TensorMap state;
  for (const auto& [key, tensor] : sample_tensors()) {
    std::string name = key;
    name.insert(name.find(".lora_"), ".inner");
    state[name] = tensor;
  }
  SaveOptions options = source.options(state);
  const Checkpoint base = sample_base(source.directory / "base");
  options.base = &base;
  REQUIRE(save(options).unwrapped == std::vector<std::string>{"inner"});
  source.require_sample(source.output, 1);
}

TEST_CASE("values that vanish in a small dtype are counted") {
  Source source;
  TensorMap state = sample_tensors();
  state["base_model.model.fc2.lora_B.weight"] =
      Tensor::from_f32({2, 4}, std::vector<float>{1, 1e-9F, 0, 1, 1, 1, -1e-9F, 1});
  SaveOptions options = source.options(state);
  options.dtype = DType::f16;
  const SaveReport report = save(options);
  REQUIRE(report.notes.back().starts_with("2 values are too small"));
}

TEST_CASE("the model card has PEFT's front matter and ends with PEFT's version") {
  Source source;
  SaveOptions options = source.options(sample_tensors());
  options.config->task_type = "CAUSAL_LM";
  options.config->base_model_name_or_path = "org/base";
  options.model_card = true;
  save(options);
  const std::string card = read_file(source.output / "README.md");
  REQUIRE(
      card.starts_with("---\nbase_model: org/base\nlibrary_name: peft\n"
                       "pipeline_tag: text-generation\ntags:\n- base_model:adapter:org/base\n"
                       "- lora\n- transformers\n---\n"));
  REQUIRE(card.ends_with("### Framework versions\n\n- PEFT 0.21.2\n"));
  options.config->task_type.reset();
  options.config->base_model_name_or_path = "yes: #no";
  options.output = source.directory / "second";
  save(options);
  REQUIRE(read_file(options.output / "README.md")
              .starts_with("---\nbase_model: \"yes: #no\"\nlibrary_name: peft\ntags:\n"
                           "- \"base_model:adapter:yes: #no\"\n- lora\n---\n"));
}

TEST_CASE("biases, DoRA and lora_bias of a state dict without configuration are understood") {
  Source source;
  TensorMap state = live_model();
  std::erase_if(
      state, [](const auto& entry) { return entry.first.find(".second.") != std::string::npos; });
  state["base_model.model.fc1.lora_magnitude_vector.default.weight"] = normal_tensor("m", {20});
  state["base_model.model.fc2.lora_magnitude_vector.default.weight"] = normal_tensor("n", {2});
  SaveOptions options = source.options(state);
  options.config.reset();
  options.flags = {8.0, false, "none", std::nullopt};
  const SaveReport report = save(options);
  REQUIRE(report.adapter.config.use_dora);
  REQUIRE(report.adapter.problems.empty());
  state["base_model.model.emb.token_adapter.trainable_tokens_delta.default"] =
      normal_tensor("t", {2, 4});
  options = source.options(state);
  options.config.reset();
  options.flags = {8.0, false, "none", std::nullopt};
  options.output = source.directory / "second";
  require_error(ErrorKind::usage, "trainable_token_indices (emb)", [&] { save(options); });
}
