// Adapters that break one rule of verify, or just do not: written to disk and verified.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

#include "lora/format/safetensors.h"
#include "lora/ops/verify.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

namespace lora::testing {

inline const Finding* find_rule(const VerifyReport& report, std::string_view rule) {
  const auto found = std::find_if(report.findings.begin(), report.findings.end(),
                                  [&](const Finding& finding) { return finding.rule == rule; });
  return found == report.findings.end() ? nullptr : &*found;
}

/// The finding of `rule` whose message holds `part`; every finding must say how to go on.
inline Finding require_rule(const VerifyReport& report, std::string_view rule,
                            std::string_view part) {
  std::string messages;
  for (const Finding& finding : report.findings) {
    messages += finding.rule + " " + finding.message + "\n";
    if (finding.rule != rule || finding.message.find(part) == std::string::npos) continue;
    REQUIRE(!finding.hint.empty());
    return finding;
  }
  INFO("wanted " << rule << " with: " << part << "\nfound:\n" << messages);
  REQUIRE(false);
  return {};
}

inline void require_rule(const VerifyReport& report, std::string_view rule, Severity severity,
                         std::string_view part) {
  const Finding finding = require_rule(report, rule, part);
  INFO(finding.message);
  REQUIRE(to_string(finding.severity) == to_string(severity));
}

inline void forbid_rule(const VerifyReport& report, std::string_view rule) {
  const Finding* finding = find_rule(report, rule);
  INFO((finding ? finding->message : ""));
  REQUIRE(finding == nullptr);
}

/// No finding of `rule` has `part` in its message.
inline void forbid_part(const VerifyReport& report, std::string_view rule, std::string_view part) {
  for (const Finding& finding : report.findings) {
    INFO(finding.message);
    REQUIRE((finding.rule != rule || finding.message.find(part) == std::string::npos));
  }
}

/// No error and no warning of any rule.
inline void require_healthy(const VerifyReport& report) {
  REQUIRE(report.is_readable);
  for (const Finding& finding : report.findings) {
    INFO(finding.rule << " " << finding.message);
    REQUIRE(to_string(finding.severity) == "note");
  }
}

/// A: [rank, in], B: [out, rank] of one linear site, trained values.
inline void add_pair(TensorMap& tensors, const std::string& path, std::int64_t rank,
                     std::int64_t in, std::int64_t out) {
  const std::string key = "base_model.model." + path;
  tensors[key + ".lora_A.weight"] = normal_tensor(key + "A", {rank, in}, 0.05);
  tensors[key + ".lora_B.weight"] = normal_tensor(key + "B", {out, rank}, 0.05);
}

inline TensorMap pairs(std::initializer_list<std::string> paths, std::int64_t rank, std::int64_t in,
                       std::int64_t out) {
  TensorMap tensors;
  for (const std::string& path : paths) add_pair(tensors, path, rank, in, out);
  return tensors;
}

/// One adapter and, once set, one base, in a folder of their own.
class VerifyCase {
 public:
  /// `config` are further members of config.json.
  void set_base(TensorMap tensors, JsonObject config = {}) {
    JsonObject document{{"model_type", "toy"}, {"architectures", JsonArray{"ToyModel"}}};
    for (const auto& [name, value] : config) document[name] = value;
    const auto path = directory_ / "base";
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    write_file(path / "config.json", dump_json(document));
    write_safetensors(path / "model.safetensors", tensors, &pytorch_metadata(),
                      WriteOptions{true, nullptr});
    base_ = open_checkpoint(path.string());
  }

  /// A base of `init-base --preset NAME`, with members of its config.json replaced.
  void set_preset(const std::string& preset, JsonObject config = {}) {
    InitBaseOptions options;
    options.preset = preset;
    options.output = directory_ / "preset";
    options.force = true;
    init_base(options);
    const auto path = options.output / "config.json";
    Json document = read_json_file(path);
    for (const auto& [name, value] : config) (*document.as_object())[name] = value;
    write_file(path, dump_json(document));
    std::filesystem::remove(options.output / kBaseLockName);
    base_ = open_checkpoint(options.output.string());
  }

  void forget_base() { base_.reset(); }
  const Checkpoint& base() const { return *base_; }
  std::filesystem::path adapter() const { return directory_ / "adapter"; }

  VerifyReport run(const AdapterConfig& config, const TensorMap& tensors) {
    std::filesystem::remove_all(adapter());
    write_sample(adapter(), config, tensors);
    return again();
  }

  /// With the bytes of adapter_config.json.
  VerifyReport run(const std::string& config, const TensorMap& tensors) {
    run(AdapterConfig(), tensors);
    write_file(adapter() / kAdapterConfigName, config);
    return again();
  }

  /// What lies there now.
  VerifyReport again() const {
    VerifyOptions options;
    options.adapter = adapter();
    options.base = base_ ? &*base_ : nullptr;
    return verify(options);
  }

 private:
  TempDir directory_;
  std::optional<Checkpoint> base_;
};

/// r 4, alpha 8 on these names, as PEFT 0.21.2 writes it.
inline AdapterConfig config_on(std::vector<std::string> targets) {
  AdapterConfig config = sample_config();
  config.target_modules = std::move(targets);
  return config;
}

}  // namespace lora::testing
