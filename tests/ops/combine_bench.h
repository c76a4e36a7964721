// Adapters on two small layers with ranks, scalings and patterns of their own, what they add as
// dense matrices, and combinations of them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/adapter/update.h"
#include "lora/ops/combine.h"
#include "lora/ops/verify.h"
#include "ops/dense.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

namespace lora::testing {

namespace fs = std::filesystem;

/// The update of a site, its experts one below the other.
inline Dense update_of(const LoraModule& module) {
  const std::vector<UpdateFactor> factors = update_factors(module);
  const MatrixShape shape = update_shape(module);
  Dense update(shape.rows * module.experts, shape.columns);
  for (const UpdateFactor& factor : factors)
    update.middleRows(factor.expert * shape.rows + factor.first_row, factor.b.shape[0]) =
        factor.scaling * dense(factor.b) * dense(factor.a);
  return update;
}

inline Dense update_of(const Adapter& adapter, const std::string& path) {
  const LoraModule* module = adapter.find(path);
  REQUIRE(module != nullptr);
  return update_of(*module);
}

struct CombineBench {
  TempDir directory;
  fs::path output = directory / "out";

  /// An adapter on fc1 [20, 10] and fc2 [2, 20], or on those named.
  fs::path add(const std::string& name, std::int64_t rank, double alpha,
               const std::vector<std::string>& modules = {"fc1", "fc2"},
               std::int64_t rank_of_fc2 = 0) {
    AdapterConfig config = sample_config();
    config.rank = rank;
    config.alpha = alpha;
    config.target_modules = modules;
    if (rank_of_fc2 != 0) {
      config.rank_pattern = {{"fc2", static_cast<double>(rank_of_fc2)}};
      config.alpha_pattern = {{"fc2", 3}};
    }
    TensorMap tensors;
    const std::map<std::string, std::pair<std::int64_t, std::int64_t>> shapes{{"fc1", {20, 10}},
                                                                              {"fc2", {2, 20}}};
    for (const std::string& module : modules) {
      const auto [out, in] = shapes.at(module);
      const std::int64_t own = module == "fc2" && rank_of_fc2 != 0 ? rank_of_fc2 : rank;
      const std::string key = "base_model.model." + module + ".lora_";
      tensors[key + "A.weight"] = normal_tensor(name + module + "a", {own, in}, 0.4);
      tensors[key + "B.weight"] = normal_tensor(name + module + "b", {out, own}, 0.2);
    }
    return add(name, config, tensors);
  }

  fs::path add(const std::string& name, const AdapterConfig& config, const TensorMap& tensors) {
    write_sample(directory / name, config, tensors);
    return directory / name;
  }

  CombineReport run(CombineMethod method, const std::vector<std::pair<fs::path, double>>& adapters,
                    CombineOptions options = {}) const {
    options.method = method;
    options.output = output;
    options.force = true;
    if (options.threads == 0) options.threads = 2;
    options.adapters.clear();
    for (const auto& [path, weight] : adapters)
      options.adapters.push_back({open_adapter(path), weight});
    return combine(options);
  }

  Adapter result() const {
    Adapter adapter = open_adapter(output);
    INFO(adapter.problems.size());
    REQUIRE(adapter.problems.empty());
    return adapter;
  }
};

/// What verify calls an error or a warning, but for one rule.
inline std::string complaints_about(const fs::path& path, const Checkpoint* base = nullptr,
                                    const std::string& expected = {}) {
  VerifyOptions options;
  options.adapter = path;
  options.base = base;
  std::string text;
  for (const Finding& finding : verify(options).findings)
    if (finding.severity != Severity::note && finding.rule != expected)
      text += finding.rule + " " + finding.message + "\n";
  return text;
}

}  // namespace lora::testing
