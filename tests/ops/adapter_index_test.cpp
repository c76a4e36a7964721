// The index of a run finds the same conflicts as comparing every pair.
#include "lora/ops/adapter_index.h"

#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

/// Adapters that share, replace and exclude in every way that conflicts_between knows.
std::vector<fs::path> write_all(const fs::path& directory) {
  std::vector<fs::path> paths;
  const auto write = [&](const AdapterConfig& config, const TensorMap& tensors) {
    paths.push_back(directory / ("a" + std::to_string(paths.size())));
    write_sample(paths.back(), config, tensors);
  };
  const AdapterConfig plain = config_on({"fc1", "fc2"});
  write(plain, sample_tensors());
  write(plain, sample_tensors(2));
  TensorMap wide;
  add_pair(wide, "fc1", 4, 12, 20);
  write(config_on({"fc1"}), wide);
  add_pair(wide, "fc1", 4, 12, 24);
  write(config_on({"fc1"}), wide);
  for (const BiasMode bias : {BiasMode::all, BiasMode::lora_only}) {
    AdapterConfig config = plain;
    config.bias = bias;
    write(config, sample_tensors());
  }
  for (const char* head : {"x", "y", "x"}) {
    AdapterConfig config = plain;
    config.modules_to_save = {"head"};
    TensorMap tensors = sample_tensors();
    tensors["base_model.model.head.weight"] = normal_tensor(head, {3, 2});
    write(config, tensors);
  }
  TensorMap on_head;
  add_pair(on_head, "head", 4, 2, 3);
  write(config_on({"head"}), on_head);
  for (const JsonArray& rows : {JsonArray{1, 2}, JsonArray{2, 3}, JsonArray{4, 5}}) {
    AdapterConfig config = plain;
    config.other["trainable_token_indices"] = JsonObject{{"embed", rows}};
    TensorMap tensors = sample_tensors();
    tensors["base_model.model.embed.token_adapter.trainable_tokens_delta"] =
        normal_tensor("t", {2, 6});
    write(config, tensors);
  }
  for (const char* parameter : {"experts.up", "experts.down"}) {
    AdapterConfig config = plain;
    config.other["target_parameters"] = JsonArray{parameter};
    write(config, sample_tensors());
  }
  AdapterConfig kasa = plain;
  kasa.other["kasa_config"] = JsonObject{{"beta", 0.1}};
  write(kasa, sample_tensors());
  AdapterConfig pissa = plain;
  pissa.other["init_lora_weights"] = "pissa";
  write(pissa, sample_tensors());
  return paths;
}

std::vector<std::string> names_of(const std::vector<fs::path>& paths) {
  std::vector<std::string> names;
  for (const fs::path& path : paths) names.push_back(path.filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("the index of a run finds what comparing every pair finds") {
  const TempDir directory;
  const std::vector<fs::path> paths = write_all(directory.path());
  // With and without the two that conflict with everything.
  for (const std::size_t count : {paths.size(), paths.size() - 2}) {
    AdapterIndex index;
    std::vector<Adapter> adapters;
    for (std::size_t i = 0; i < count; ++i) {
      index.open(paths[i]);
      adapters.push_back(open_adapter(paths[i]));
    }
    REQUIRE(index.entries().size() == count);
    std::size_t conflicts = 0;
    for (const Adapter& adapter : adapters) {
      std::vector<fs::path> expected, found;
      for (const Adapter& other : adapters)
        if (other.path != adapter.path && !conflicts_between(adapter, other).empty())
          expected.push_back(other.path);
      for (const AdapterIndex::Entry* entry : index.conflicting(adapter))
        found.push_back(entry->adapter.path);
      INFO(adapter.path);
      REQUIRE(names_of(found) == names_of(expected));
      REQUIRE(std::is_sorted(found.begin(), found.end()));
      conflicts += found.size();
    }
    REQUIRE(conflicts > 20);
  }
}

TEST_CASE("an adapter is opened once, and one that PEFT refuses conflicts with none") {
  const TempDir directory;
  AdapterConfig config = sample_config();
  config.bias = BiasMode::all;
  for (const char* name : {"a", "b"}) write_sample(directory / name, config, sample_tensors());
  AdapterIndex index;
  index.open(directory / "a");
  index.open(directory / "a");
  REQUIRE(index.entries().size() == 1);
  REQUIRE(index.find(directory / "a") == &index.entries().front());
  REQUIRE(index.find(directory / "b") == nullptr);
  write_file(directory / "b" / kAdapterConfigName,
             R"({"peft_type": "LORA", "r": 4, "r": 4, "bias": "all", "target_modules": ["fc1"]})");
  index.open(directory / "b");
  REQUIRE(!index.find(directory / "b")->config_problems.empty());
  REQUIRE(index.conflicting(index.entries().front().adapter).empty());
  require_error(ErrorKind::not_found, "found nothing", [&] { index.open(directory / "c"); });
}
