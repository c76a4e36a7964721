#include <map>
#include <set>

#include "lora/format/json.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/adapter";

using Rules = std::set<std::string>;

// What is true of these files although PEFT wrote them. Names are those without a release.
const std::map<std::string, Rules>& deserved() {
  static const std::map<std::string, Rules> rules{
      {"mlp_bin", {"LV102"}},
      {"pickle", {"LV102"}},
      {"pickle_attention", {"LV102"}},
      {"pickle_convolution", {"LV102"}},
      {"pickle_experts", {"LV102"}},
      {"pissa", {"LV212"}},
      {"olora", {"LV212"}},
      {"patterns_overlapping", {"LV208"}},
      {"tied_independent", {"LV315"}},
      {"tied_head_only", {"LV315"}},
      // Keys of a live model: PEFT loads them under this very name and under no other.
      {"other_name_in_keys", {"LV307"}},
      // The entry `norm` captures every layer's norms as well, as PEFT does.
      {"modules_to_save", {"LV209"}},
      // Whole matrices of the base that nobody asked for.
      {"saved_embeddings_resized", {"LV105"}},
      // PEFT before 0.21 loses these biases.
      {"bias_lora_only-0.17.1", {"LV211"}},
      {"bias_lora_only-0.18.1", {"LV211"}},
      {"bias_lora_only-0.19.1", {"LV211"}},
      {"bias_lora_only-0.20.0", {"LV211"}},
      // No peft_version: nothing says which program it was.
      {"attention-0.17.1", {"LV313"}},
      {"experts_square-0.17.1", {"LV314"}}};
  return rules;
}

Rules complaints(const std::filesystem::path& adapter, const Checkpoint* base) {
  VerifyOptions options;
  options.adapter = adapter;
  options.base = base;
  const VerifyReport report = verify(options);
  REQUIRE(report.is_readable);
  Rules rules;
  for (const Finding& finding : report.findings)
    if (finding.severity != Severity::note) {
      UNSCOPED_INFO(finding.rule << " " << finding.message);
      rules.insert(finding.rule);
    }
  return rules;
}

Rules deserved_by(const std::string& name) {
  const auto exact = deserved().find(name);
  if (exact != deserved().end()) return exact->second;
  const auto general = deserved().find(name.substr(0, name.find('-')));
  return general == deserved().end() ? Rules() : general->second;
}

}  // namespace

TEST_CASE("no error and no warning on adapters of every kind that PEFT wrote, on their base") {
  const Json manifest = read_json_file(kGolden / "kinds/manifest.json");
  std::size_t seen = 0;
  for (const Json& entry : *manifest.as_array()) {
    if (entry.find("healthy")->as_bool() != true) continue;
    const std::string name = *entry.find("name")->as_string();
    const auto adapter = kGolden / "kinds" / *entry.find("path")->as_string();
    const Checkpoint base =
        open_checkpoint((kGolden / "kinds" / *entry.find("base")->as_string()).string());
    INFO(name << " on its base");
    CHECK(complaints(adapter, &base) == deserved_by(name));
    ++seen;
  }
  REQUIRE(seen >= 80);
}

TEST_CASE("no error and no warning on adapters of every kind that PEFT wrote, without a base") {
  const Json manifest = read_json_file(kGolden / "kinds/manifest.json");
  for (const Json& entry : *manifest.as_array()) {
    if (entry.find("healthy")->as_bool() != true) continue;
    const std::string name = *entry.find("name")->as_string();
    Rules expected = deserved_by(name);
    for (const char* with_base : {"LV105", "LV315"}) expected.erase(with_base);
    INFO(name << " alone");
    CHECK(complaints(kGolden / "kinds" / *entry.find("path")->as_string(), nullptr) == expected);
  }
}

TEST_CASE("no error and no warning on the golden adapters of the reader") {
  for (const auto& entry : std::filesystem::directory_iterator(kGolden / "adapters")) {
    if (!is_adapter_directory(entry.path())) continue;
    const std::string name = entry.path().filename().string();
    INFO(name);
    CHECK(complaints(entry.path(), nullptr) == deserved_by(name));
  }
}
