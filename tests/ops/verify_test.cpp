#include "lora/ops/verify.h"

#include <limits>

#include "lora/format/safetensors.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Sample {
  TempDir directory;
  Checkpoint base = sample_base(directory / "base");
  std::filesystem::path adapter = directory / "adapter";

  Sample() { write_sample(adapter, sample_config(), sample_tensors(), &base); }

  VerifyReport verify_with_base() {
    VerifyOptions options;
    options.adapter = adapter;
    options.base = &base;
    return verify(options);
  }

  // Replaces the weights behind the records' back.
  void rewrite(const TensorMap& tensors) {
    write_safetensors(adapter / kAdapterWeightsName, tensors, &pytorch_metadata(),
                      WriteOptions{true, nullptr});
  }
  void rewrite(const AdapterConfig& config) {
    write_file(adapter / kAdapterConfigName, dump_adapter_config(config));
  }
};

constexpr const char* kA1 = "base_model.model.fc1.lora_A.weight";
constexpr const char* kB1 = "base_model.model.fc1.lora_B.weight";
constexpr const char* kA2 = "base_model.model.fc2.lora_A.weight";

}  // namespace

TEST_CASE("an untouched recorded adapter on its base is proven, without any finding") {
  Sample sample;
  const VerifyReport report = sample.verify_with_base();
  REQUIRE(report.verdict == Verdict::proven);
  REQUIRE(report.findings.empty());
  REQUIRE(report.modules.size() == 2);
  REQUIRE(report.modules[0].base_mean.has_value());
  REQUIRE(report.modules[0].relative_update.value() > 0);
}

TEST_CASE("without records the verdict is plausible, never proven") {
  Sample sample;
  write_sample(sample.adapter, sample_config(), sample_tensors());
  const VerifyReport report = sample.verify_with_base();
  REQUIRE(report.verdict == Verdict::plausible);
  REQUIRE(!report.has_error());
  REQUIRE(require_rule(report, "LV502", "which base").severity == Severity::note);
}

TEST_CASE("require-proof turns an unproven base into an error") {
  Sample sample;
  write_sample(sample.adapter, sample_config(), sample_tensors());
  VerifyOptions options;
  options.adapter = sample.adapter;
  options.base = &sample.base;
  options.require_proof = true;
  const VerifyReport report = verify(options);
  REQUIRE(report.has_error());
  REQUIRE(require_rule(report, "LV502", "which base").severity == Severity::error);
}

TEST_CASE("a dropped key is named") {
  Sample sample;
  TensorMap tensors = sample_tensors();
  tensors.erase(kA2);
  sample.rewrite(tensors);
  const VerifyReport report = sample.verify_with_base();
  REQUIRE(report.verdict == Verdict::contradicted);
  require_rule(report, "LV303", "fc2");
  REQUIRE(require_rule(report, "LV404", "is missing").tensor == kA2);
}

TEST_CASE("exchanged tensors are recognised as exchanged") {
  Sample sample;
  AdapterConfig config = sample_config();
  TensorMap tensors;
  // Two modules of one shape, so that an exchange loads without a word.
  tensors["base_model.model.fc1.lora_A.weight"] = normal_tensor("x", {4, 10});
  tensors["base_model.model.fc1.lora_B.weight"] = normal_tensor("y", {20, 4});
  tensors["base_model.model.fc2.lora_A.weight"] = normal_tensor("z", {4, 20});
  tensors["base_model.model.fc2.lora_B.weight"] = normal_tensor("w", {2, 4});
  TensorMap square = tensors;
  square["base_model.model.fc1.lora_A.weight"] = normal_tensor("p", {4, 10});
  square["base_model.model.fc3.lora_A.weight"] = normal_tensor("q", {4, 10});
  square["base_model.model.fc3.lora_B.weight"] = normal_tensor("r", {20, 4});
  config.target_modules = std::vector<std::string>{"fc1", "fc2", "fc3"};
  write_sample(sample.adapter, config, square, &sample.base);
  std::swap(square["base_model.model.fc1.lora_A.weight"],
            square["base_model.model.fc3.lora_A.weight"]);
  sample.rewrite(square);
  VerifyOptions options;
  options.adapter = sample.adapter;
  const VerifyReport report = verify(options);
  const Finding finding = require_rule(report, "LV403", "tensors were exchanged");
  REQUIRE(finding.message.find("fc1.lora_A") != std::string::npos);
  REQUIRE(finding.message.find("fc3.lora_A") != std::string::npos);
}

TEST_CASE("an edited alpha is a changed scaling, with both numbers") {
  Sample sample;
  AdapterConfig config = sample_config();
  config.alpha = 16;
  sample.rewrite(config);
  const VerifyReport report = sample.verify_with_base();
  require_rule(report, "LV204", "scaling is 4");
  require_rule(report, "LV204", "the record says 2");
  REQUIRE(find_rule(report, "LV403") == nullptr);
}

TEST_CASE("an edited rank contradicts the tensors") {
  Sample sample;
  AdapterConfig config = sample_config();
  config.rank = 8;
  sample.rewrite(config);
  const VerifyReport report = sample.verify_with_base();
  REQUIRE(require_rule(report, "LV203", "2 modules have rank 4, expected 8").module == "fc1");
  REQUIRE(find_rule(report, "LV303") == nullptr);
}

TEST_CASE("another base is named with the tensors that differ") {
  Sample sample;
  const Checkpoint other = sample_base(sample.directory / "other", 1);
  VerifyOptions options;
  options.adapter = sample.adapter;
  options.base = &other;
  const VerifyReport report = verify(options);
  REQUIRE(report.verdict == Verdict::contradicted);
  const Finding finding = require_rule(report, "LV501", "2 of 2 targeted tensors differ");
  REQUIRE(finding.message.find("fc1.weight") != std::string::npos);
}

TEST_CASE("one flipped bit is caught and its tensor named") {
  Sample sample;
  const auto path = sample.adapter / kAdapterWeightsName;
  const SafetensorsFile file = read_safetensors(path);
  const auto offset = static_cast<std::size_t>(file.tensors.at(kB1).bytes.data() -
                                               file.tensors.at(kA1).bytes.data());
  std::string bytes = read_file(path);
  const auto first = static_cast<std::size_t>(file.header_bytes);
  bytes[first + offset] = static_cast<char>(bytes[first + offset] ^ 1);
  write_file(path, bytes);
  const VerifyReport report = sample.verify_with_base();
  REQUIRE(require_rule(report, "LV403", "values differ from the record").tensor == kB1);
  REQUIRE(std::count_if(report.findings.begin(), report.findings.end(),
                        [](const Finding& f) { return f.severity == Severity::error; }) == 1);
}

TEST_CASE("a base changed after it was locked is named") {
  Sample sample;
  TensorMap tensors = sample.base.tensors;
  tensors["fc1.bias"] = normal_tensor("changed", {20});
  write_safetensors(sample.directory / "base" / "model.safetensors", tensors, &pytorch_metadata(),
                    WriteOptions{true, nullptr});
  const Checkpoint changed = open_checkpoint((sample.directory / "base").string());
  VerifyOptions options;
  options.adapter = sample.adapter;
  options.base = &changed;
  options.full = true;
  const VerifyReport report = verify(options);
  require_rule(report, "LV503", "fc1.bias");
  require_rule(report, "LV501", "the targeted tensors are equal, others differ");
}

TEST_CASE("NaN and Inf are counted and located") {
  Sample sample;
  TensorMap tensors = sample_tensors();
  std::vector<float> values = tensors[kA1].to_f32();
  values[7] = std::numeric_limits<float>::quiet_NaN();
  values[9] = std::numeric_limits<float>::infinity();
  tensors[kA1] = Tensor::from_f32({4, 10}, values);
  write_sample(sample.adapter, sample_config(), tensors);
  const Finding finding = require_rule(sample.verify_with_base(), "LV401",
                                       "1 NaN and 1 infinite values, the first at element 7");
  REQUIRE(finding.tensor == kA1);
}

TEST_CASE("an adapter whose B is all zero has no effect: an error, for some modules a warning") {
  Sample sample;
  TensorMap tensors = sample_tensors();
  const std::vector<float> zeros(80, 0.0F);
  tensors[kB1] = Tensor::from_f32({20, 4}, zeros);
  write_sample(sample.adapter, sample_config(), tensors);
  REQUIRE(require_rule(sample.verify_with_base(), "LV402", "1 of 2 modules").severity ==
          Severity::warning);
  tensors["base_model.model.fc2.lora_B.weight"] =
      Tensor::from_f32({2, 4}, std::span(zeros).first(8));
  write_sample(sample.adapter, sample_config(), tensors);
  REQUIRE(require_rule(sample.verify_with_base(), "LV402", "2 of 2 modules").severity ==
          Severity::error);
}

TEST_CASE("strict makes warnings errors and leaves notes alone") {
  Sample sample;
  AdapterConfig config = sample_config();
  config.target_modules = std::vector<std::string>{"fc1", "fc2", "fc9"};
  write_sample(sample.adapter, config, sample_tensors());
  VerifyOptions options;
  options.adapter = sample.adapter;
  options.base = &sample.base;
  REQUIRE(!verify(options).has_error());
  options.strict = true;
  const VerifyReport report = verify(options);
  REQUIRE(require_rule(report, "LV205", "fc9").severity == Severity::error);
  REQUIRE(require_rule(report, "LV502", "base").severity == Severity::note);
}

TEST_CASE("paths that are no adapter give a finding and the verdict unreadable") {
  TempDir directory;
  const auto verdict = [&](const std::filesystem::path& path) {
    VerifyOptions options;
    options.adapter = path;
    const VerifyReport report = verify(options);
    REQUIRE(!report.is_readable);
    REQUIRE(report.verdict == Verdict::unreadable);
    return require_rule(report, "LV101", "").message;
  };
  verdict(directory / "missing");
  std::filesystem::create_directories(directory / "empty");
  verdict(directory / "empty");
  write_sample(directory / "cut", sample_config(), sample_tensors());
  const auto weights = directory / "cut" / kAdapterWeightsName;
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  REQUIRE(verdict(directory / "cut").find("adapter_model.safetensors") != std::string::npos);
  write_file(directory / "cut" / kAdapterConfigName, "{not json");
  REQUIRE(verdict(directory / "cut").find("JSON") != std::string::npos);
}

TEST_CASE("asked-for outputs without base or record are inconclusive, never fine") {
  Sample sample;
  VerifyOptions options;
  options.adapter = sample.adapter;
  options.check_outputs = true;
  const VerifyReport without_base = verify(options);
  REQUIRE(without_base.is_inconclusive());
  require_rule(without_base, "LV603", "no base was given");
  options.base = &sample.base;
  const VerifyReport without_record = verify(options);
  REQUIRE(without_record.is_inconclusive());
  require_rule(without_record, "LV603", "no recorded outputs");
}

TEST_CASE("rule ids are unique, grouped, and every rule explains itself") {
  std::vector<std::string_view> ids;
  for (const RuleInfo& rule : verify_rules()) {
    REQUIRE(rule.id.size() == 5);
    REQUIRE(rule.id.substr(0, 2) == "LV");
    for (const auto text : {rule.name, rule.looks_at, rule.says, rule.fix}) REQUIRE(!text.empty());
    ids.push_back(rule.id);
  }
  REQUIRE(std::is_sorted(ids.begin(), ids.end()));
  REQUIRE(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
}
