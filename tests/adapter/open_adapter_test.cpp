#include <cmath>

#include "adapter/golden.h"
#include "lora/adapter/adapter.h"
#include "lora/format/safetensors.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::config_of;
using testing::golden;
using testing::read_file;
using testing::require_error;
using testing::TempDir;
using testing::write_file;

namespace fs = std::filesystem;

const char* const kMinimalConfig = R"({"peft_type": "LORA", "target_modules": ["fc1"]})";

std::string hint_of(const fs::path& path) {
  try {
    open_adapter(path);
  } catch (const Error& error) {
    return error.hint();
  }
  return "no error";
}

TEST_CASE("directories written by PEFT open cleanly and are written back byte for byte") {
  std::size_t checked = 0;
  for (const fs::path& path : testing::entries_of(golden("adapters"))) {
    const std::string name = path.filename().string();
    // One file with a key that PEFT itself ignores, one in the other container: below.
    if (!fs::is_directory(path) || name == "mlp_saved_bias_all" || name == "mlp_bin") continue;
    INFO(name);
    const Adapter adapter = open_adapter(path);
    CHECK(adapter.problems.empty());
    CHECK(adapter.unclean_keys.empty());
    CHECK_FALSE(adapter.is_pickle);
    const TempDir folder;
    AtomicDirectory out(folder / "copy", {});
    write_adapter(out, adapter.config, adapter.tensors);
    out.commit();
    CHECK(read_file(folder / "copy" / kAdapterWeightsName) ==
          read_file(path / kAdapterWeightsName));
    CHECK(read_file(folder / "copy" / kAdapterConfigName) == read_file(path / kAdapterConfigName));
    CHECK(testing::entry_count(folder / "copy") == 2);
    ++checked;
  }
  CHECK(checked == 9);
}

TEST_CASE("a pickled adapter holds the same tensors as its safetensors twin") {
  const Adapter pickled = open_adapter(golden("adapters/mlp_bin"));
  const Adapter plain = open_adapter(golden("adapters/mlp"));
  CHECK(pickled.is_pickle);
  CHECK(pickled.problems.empty());
  REQUIRE(pickled.tensors.size() == plain.tensors.size());
  for (const auto& [key, tensor] : plain.tensors) {
    INFO(key);
    CHECK(pickled.tensors.at(key).shape == tensor.shape);
    CHECK(pickled.tensors.at(key).to_f32() == tensor.to_f32());
  }
}

TEST_CASE("what PEFT saved is understood") {
  SECTION("rank pattern and rsLoRA") {
    const Adapter adapter = open_adapter(golden("adapters/llama"));
    REQUIRE(adapter.modules.size() == 4);
    const LoraModule* v = adapter.find("model.layers.1.self_attn.v_proj");
    REQUIRE(v != nullptr);
    CHECK(v->rank == 3);
    CHECK(v->scaling == 4 / std::sqrt(3.0));
  }
  SECTION("DoRA and a saved head") {
    const Adapter adapter = open_adapter(golden("adapters/llama_dora_saved"));
    CHECK(adapter.modules.at(0).magnitude->shape == std::vector<std::int64_t>{8});
    CHECK(adapter.replacements.contains("lm_head.weight"));
  }
  SECTION("embedding with its base matrix") {
    const Adapter adapter = open_adapter(golden("adapters/llama_embedding"));
    CHECK(adapter.find("model.embed_tokens")->kind == LayerKind::embedding);
    CHECK(adapter.replacements.contains("model.embed_tokens.weight"));
  }
  SECTION("biases") {
    const Adapter all = open_adapter(golden("adapters/mlp_bias_all"));
    CHECK(all.replacements.contains("fc1.bias"));
    CHECK(all.replacements.contains("fc2.bias"));
    const Adapter lora_only = open_adapter(golden("adapters/mlp_lora_only"));
    CHECK(lora_only.replacements.size() == 1);
    CHECK(open_adapter(golden("adapters/llama_lora_bias")).modules.at(0).bias.has_value());
  }
  SECTION("the originals and copies beside a saved module with bias=all") {
    const Adapter adapter = open_adapter(golden("adapters/mlp_saved_bias_all"));
    CHECK(adapter.problems.empty());
    CHECK(adapter.unclean_keys ==
          std::vector<std::string>{"base_model.model.fc2.modules_to_save.bias"});
    CHECK(adapter.tensors.contains("base_model.model.fc2.original_module.bias"));
    CHECK(adapter.replacements.size() == 3);
  }
}

TEST_CASE("safetensors wins over a pickle beside it") {
  const TempDir folder;
  fs::copy(golden("adapters/mlp_bin"), folder / "a", fs::copy_options::recursive);
  fs::copy(golden("adapters/mlp") / kAdapterWeightsName, folder / "a" / kAdapterWeightsName);
  const Adapter adapter = open_adapter(folder / "a");
  CHECK_FALSE(adapter.is_pickle);
  CHECK(adapter.weights_path == folder / "a" / kAdapterWeightsName);
}

TEST_CASE("weights alone open with a configuration given") {
  const fs::path weights = golden("adapters/mlp") / kAdapterWeightsName;
  const Adapter adapter = open_adapter(weights, config_of(R"({"r": 4, "lora_alpha": 2})"));
  CHECK(adapter.path == weights);
  CHECK(adapter.modules.at(0).scaling == 0.5);
  require_error(ErrorKind::not_found, "without a configuration", [&] { open_adapter(weights); });
  CHECK(hint_of(weights) == "give its directory");
}

TEST_CASE("a given configuration replaces the directory's own") {
  const Adapter adapter =
      open_adapter(golden("adapters/mlp"), config_of(R"({"r": 4, "lora_alpha": 2})"));
  CHECK(adapter.modules.at(0).scaling == 0.5);
}

TEST_CASE("a directory that is no adapter says what it is") {
  const TempDir folder;
  const fs::path path = folder / "x";
  fs::create_directory(path);
  const auto require_found = [&](const char* part) {
    require_error(ErrorKind::not_found, part, [&] { open_adapter(path); });
  };
  SECTION("empty") { require_found("found nothing"); }
  SECTION("a checkpoint") {
    write_file(path / "config.json", "{}");
    require_found("a base checkpoint");
    CHECK(hint_of(path) == "a base goes behind --base");
  }
  SECTION("a run") {
    write_file(path / "run.json", "{}");
    require_found("a run directory");
    CHECK(hint_of(path) == "give " + (path / "adapter").string());
  }
  SECTION("weights without configuration") {
    write_file(path / kAdapterWeightsName, "x");
    require_found("weights without adapter_config.json");
  }
  SECTION("a named adapter inside") {
    write_file(path / "mine" / kAdapterConfigName, kMinimalConfig);
    require_found("only folders with adapters");
    CHECK(hint_of(path) == "give " + (path / "mine").string());
  }
  SECTION("other files") {
    for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h"}) write_file(path / name, "x");
    require_found("found a, b, c, d, e, f and 2 more");
  }
  SECTION("configuration without weights") {
    write_file(path / kAdapterConfigName, kMinimalConfig);
    require_found("expected adapter_model.safetensors or adapter_model.bin");
  }
}

TEST_CASE("paths that hold no adapter are refused") {
  const TempDir folder;
  require_error(ErrorKind::not_found, "found nothing", [&] { open_adapter(folder / "none"); });
  require_error(ErrorKind::not_found, "an empty path", [&] { open_adapter(""); });
  write_file(folder / kAdapterConfigName, kMinimalConfig);
  require_error(ErrorKind::not_found, "the configuration alone",
                [&] { open_adapter(folder / kAdapterConfigName); });
}

TEST_CASE("damaged weights are refused") {
  const TempDir folder;
  write_file(folder / kAdapterConfigName, kMinimalConfig);
  SECTION("empty") {
    write_file(folder / kAdapterWeightsName, "");
    require_error(ErrorKind::malformed, "an empty file", [&] { open_adapter(folder.path()); });
  }
  SECTION("no tensor") {
    write_safetensors(folder / kAdapterWeightsName, {}, &pytorch_metadata(), {});
    require_error(ErrorKind::malformed, "no tensor", [&] { open_adapter(folder.path()); });
  }
  SECTION("garbage") {
    write_file(folder / kAdapterWeightsName, std::string(64, 'x'));
    require_error(ErrorKind::malformed, "", [&] { open_adapter(folder.path()); });
  }
  SECTION("garbage pickle") {
    write_file(folder / kAdapterPickleName, std::string(64, 'x'));
    require_error(ErrorKind::malformed, "", [&] { open_adapter(folder.path()); });
  }
}

}  // namespace
}  // namespace lora
