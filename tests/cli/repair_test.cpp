// repair, save of several adapters and weighted loading through the command line.
#include <cmath>

#include "lora/adapter/adapter.h"
#include "lora/format/safetensors.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Folder {
  TempDir directory;
  std::string path(std::string_view name) const { return (directory / name).string(); }

  // The sample adapter with names of a compiled model.
  Folder() {
    sample_base(directory / "base");
    TensorMap wrapped;
    for (const auto& [key, tensor] : sample_tensors()) wrapped["_orig_mod." + key] = tensor;
    write_sample(directory / "damaged", sample_config(), wrapped);
    write_sample(directory / "whole", sample_config(), sample_tensors());
  }
};

}  // namespace

TEST_CASE("repair prints what it changed and why, and verify agrees with the result") {
  Folder folder;
  REQUIRE(lora::testing::lora({"verify", folder.path("damaged")}).code == 1);
  const CommandResult text = lora_ok(
      {"repair", folder.path("damaged"), "--base", folder.path("base"), "-o", folder.path("out")});
  REQUIRE(contains(text.out, "what   found"));
  REQUIRE(contains(text.out, "_orig_mod. in 4 names"));
  REQUIRE(contains(text.out, "torch.compile"));
  REQUIRE(contains(text.out,
                   "renamed _orig_mod.base_model.model.fc1.lora_A.weight -> "
                   "base_model.model.fc1.lora_A.weight"));
  lora_ok({"verify", folder.path("out"), "--base", folder.path("base")});
}

TEST_CASE("repair --json lists every change and every name") {
  Folder folder;
  CommandResult result =
      lora_ok({"repair", folder.path("damaged"), "-o", folder.path("out"), "--dry-run", "--json"});
  REQUIRE(*result.result().find("changes")->as_array()->at(0).find("why")->as_string() ==
          "torch.compile names what it wraps so");
  REQUIRE(result.result().find("renamed")->as_array()->size() == 4);
  REQUIRE(result.result().find("written")->as_bool() == false);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
}

TEST_CASE("repair of a whole adapter says so and writes nothing") {
  Folder folder;
  const CommandResult result = lora_ok({"repair", folder.path("whole"), "-o", folder.path("out")});
  REQUIRE(contains(result.out, "nothing to repair"));
  REQUIRE(!std::filesystem::exists(folder.path("out")));
  lora_ok({"repair", folder.path("whole"), "-o", folder.path("out"), "--always"});
  REQUIRE(std::filesystem::exists(folder.path("out")));
}

TEST_CASE("repair asks with exit code 2 and refuses with 3 or 4") {
  Folder folder;
  std::filesystem::remove(folder.directory / "damaged/adapter_config.json");
  const CommandResult asked =
      lora::testing::lora({"repair", folder.path("damaged"), "-o", folder.path("out")});
  REQUIRE(asked.code == 2);
  REQUIRE(contains(asked.err, "give --alpha N"));
  REQUIRE(lora::testing::lora(
              {"repair", folder.path("whole"), "-o", folder.path("out"), "--map", "fc1"})
              .code == 2);
  REQUIRE(lora::testing::lora({"repair", folder.path("nowhere"), "-o", folder.path("out")}).code ==
          3);
  lora_ok({"init-base", "--preset", "mlp", "--hidden-sizes", "11,20,2", "-o", folder.path("wide")});
  REQUIRE(lora::testing::lora({"repair", folder.path("whole"), "--base", folder.path("wide"), "-o",
                               folder.path("out")})
              .code == 4);
  REQUIRE(!std::filesystem::exists(folder.path("out")));
}

TEST_CASE("--map is given once for each rename, wherever it stands") {
  Folder folder;
  TensorMap renamed;
  for (const auto& [key, tensor] : sample_tensors()) {
    std::string name = key;
    name.replace(name.find("fc"), 2, "dense");
    renamed[name] = tensor;
  }
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"dense1", "dense2"};
  write_sample(folder.directory / "renamed", config, renamed);
  lora_ok({"repair", "--map", "dense1=fc1", folder.path("renamed"), "--map=dense2=fc2", "-o",
           folder.path("out"), "--base", folder.path("base")});
  for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
    REQUIRE(read_file(folder.directory / "out" / name) ==
            read_file(folder.directory / "whole" / name));
}

TEST_CASE("save picks one of several adapters, or writes all of them") {
  Folder folder;
  TensorMap live;
  for (const char* name : {".default.weight", ".second.weight"})
    for (const auto& [key, tensor] : sample_tensors())
      live[key.substr(0, key.rfind('.')) + name] = tensor;
  write_safetensors(folder.directory / "live.safetensors", live, nullptr, {});
  const std::string config = folder.path("whole/adapter_config.json");
  const CommandResult asked =
      lora::testing::lora({"save", folder.path("live.safetensors"), "--adapter-config", config,
                           "-o", folder.path("one")});
  REQUIRE(asked.code == 2);
  REQUIRE(contains(asked.err, "default, second"));
  lora_ok({"save", folder.path("live.safetensors"), "--adapter-name", "second", "--adapter-config",
           config, "-o", folder.path("one"), "--model-card", "--dtype", "bf16"});
  REQUIRE(std::filesystem::exists(folder.path("one/README.md")));
  CommandResult all =
      lora_ok({"save", folder.path("live.safetensors"), "--adapter-name", "all", "--adapter-config",
               "default=" + config + ",second=" + config, "-o", folder.path("all"), "--json"});
  REQUIRE(all.result().find("adapters")->as_array()->size() == 2);
  REQUIRE(is_adapter_directory(folder.path("all/second")));
}

TEST_CASE("load weighs adapters behind the last @, but never a path that exists with one") {
  Folder folder;
  std::filesystem::copy(folder.path("whole"), folder.path("whole@2"));
  std::filesystem::copy(folder.path("whole"), folder.path("odd@3"));
  CommandResult result = lora_ok({"load", folder.path("whole@-0.5"), folder.path("odd@3"),
                                  folder.path("whole@2"), "--base", folder.path("base"), "--json"});
  const JsonArray& adapters = *result.result().find("adapters")->as_array();
  REQUIRE(adapters[0].find("weight")->as_double() == -0.5);
  REQUIRE(adapters[0].find("modules")->as_array()->at(0).find("scaling")->as_double() == -1);
  REQUIRE(adapters[1].find("weight")->as_double() == 1);
  REQUIRE(adapters[2].find("weight")->as_double() == 2);
  REQUIRE(adapters[2].find("path")->as_string()->ends_with("whole"));
  REQUIRE(
      lora::testing::lora({"load", folder.path("whole@inf"), "--base", folder.path("base")}).code ==
      2);
}

TEST_CASE("load weighs expert parameters with the strength that the base settles") {
  // Two parameters of one module with ranks and alphas of their own, and rsLoRA: the keys do not
  // say which is which. PEFT's scale_layer multiplies the scaling of each.
  const std::string kinds = LORA_SOURCE_DIR "/tests/golden/adapter/kinds/";
  CommandResult result = lora_ok({"load", kinds + "adapters/experts_two_ranks@0.5", "--base",
                                  kinds + "bases/experts", "--json"});
  const JsonArray& modules =
      *result.result().find("adapters")->as_array()->at(0).find("modules")->as_array();
  REQUIRE(modules.size() == 2);
  REQUIRE(modules[0].find("rank")->as_int() == 3);
  REQUIRE(modules[0].find("scaling")->as_double() == 0.5 * (8 / std::sqrt(3.0)));
  REQUIRE(modules[1].find("rank")->as_int() == 2);
  REQUIRE(modules[1].find("scaling")->as_double() == 0.5 * (5 / std::sqrt(2.0)));
}

TEST_CASE("load --trainable lists what would train, and the tree numbers the adapters") {
  Folder folder;
  const CommandResult text = lora_ok({"load", folder.path("whole"), folder.path("whole@2"),
                                      "--base", folder.path("base"), "--trainable"});
  REQUIRE(contains(text.out, "base_model.model.fc1.lora_A.weight"));
  REQUIRE(contains(text.out, "[lora 2] A [4, 10], B [20, 4], r 4, alpha 8, scaling 4"));
  CommandResult json = lora_ok(
      {"load", folder.path("whole"), "--base", folder.path("base"), "--trainable", "--json"});
  const JsonArray& list = *json.result().find("trainable_list")->as_array();
  REQUIRE(list.size() == 4);
  REQUIRE(list[0].find("numel")->as_int() == 40);
  REQUIRE(json.result().find("trainable_parameters")->as_int() == 40 + 80 + 80 + 8);
}

TEST_CASE("load refuses adapters that contradict each other with every pair") {
  Folder folder;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::lora_only;
  for (const char* name : {"first", "second"}) {
    TensorMap tensors = sample_tensors();
    tensors["base_model.model.fc1.base_layer.bias"] = normal_tensor(name, {20});
    tensors["base_model.model.fc2.base_layer.bias"] = normal_tensor(name, {2});
    write_sample(folder.directory / name, config, tensors);
  }
  const CommandResult result = lora::testing::lora(
      {"load", folder.path("first"), folder.path("second"), "--base", folder.path("base")});
  REQUIRE(result.code == 4);
  REQUIRE(contains(result.err, "replace with different values: fc1, fc2"));
  REQUIRE(contains(result.err, "bias lora_only and bias lora_only"));
}
