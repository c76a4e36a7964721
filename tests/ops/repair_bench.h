// A damaged adapter in a folder of its own, and what repair makes of it.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "lora/ops/repair.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

namespace lora::testing {

using Names = std::vector<std::string>;

inline std::string clean(const std::string& rest) { return "base_model.model." + rest; }

struct Bench {
  TempDir directory;
  std::filesystem::path damaged = directory / "damaged";
  std::filesystem::path output = directory / "repaired";

  RepairOptions options() const {
    RepairOptions result;
    result.adapter = damaged;
    result.output = output;
    return result;
  }

  void write(const TensorMap& tensors, const std::string& name = kAdapterWeightsName) const {
    std::filesystem::create_directories(damaged);
    write_safetensors(damaged / name, tensors, &pytorch_metadata(), WriteOptions{true, nullptr});
  }

  void write_config(const AdapterConfig& config) const {
    write_file(damaged / kAdapterConfigName, dump_adapter_config(config));
  }

  void write_pickle(const TensorMap& tensors, const std::string& name) const {
    std::filesystem::create_directories(damaged);
    write_file_atomically(damaged / name, WriteOptions{true, nullptr}, [&](WritableFile& file) {
      const std::vector<std::pair<std::string, Tensor>> entries(tensors.begin(), tensors.end());
      write_torch_file(file, entries);
    });
  }

  // The files of the healthy sample, to compare with.
  void require_sample(const AdapterConfig& config = sample_config()) const {
    write_sample(directory / "expected", config, sample_tensors());
    for (const char* name : {kAdapterWeightsName, kAdapterConfigName})
      REQUIRE(read_file(output / name) == read_file(directory / "expected" / name));
  }

  void require_refused(const RepairOptions& options, ErrorKind kind, std::string_view part) const {
    require_error(kind, part, [&] { repair(options); });
    REQUIRE(!std::filesystem::exists(output));
  }
};

inline TensorMap renamed(const std::function<std::string(std::string)>& rename) {
  TensorMap tensors;
  for (const auto& [key, tensor] : sample_tensors()) tensors[rename(key)] = tensor;
  return tensors;
}

inline bool has_change(const RepairReport& report, std::string_view from, std::string_view to) {
  return std::any_of(report.changes.begin(), report.changes.end(), [&](const RepairChange& change) {
    return change.from.find(from) != std::string::npos && change.to.find(to) != std::string::npos &&
           !change.why.empty();
  });
}

// A base without config.json: modules follow from names and shapes.
inline Checkpoint bare_base(
    const std::filesystem::path& path,
    const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& weights) {
  TensorMap tensors;
  for (const auto& [name, shape] : weights) tensors[name] = normal_tensor(name, shape);
  write_safetensors(path, tensors, nullptr, WriteOptions{true, nullptr});
  return open_checkpoint(path.string());
}

// A pair of factors for a layer of 6 inputs and 6 outputs.
inline void add_pair(TensorMap& tensors, const std::string& path, std::int64_t rank = 2) {
  tensors[path + ".lora_A.weight"] = normal_tensor(path + "a", {rank, 6});
  tensors[path + ".lora_B.weight"] = normal_tensor(path + "b", {6, rank});
}

inline AdapterConfig pair_config(Names targets) {
  AdapterConfig config;
  config.peft_version = "0.21.2";
  config.rank = 2;
  config.alpha = 4;
  config.target_modules = std::move(targets);
  return config;
}

}  // namespace lora::testing
