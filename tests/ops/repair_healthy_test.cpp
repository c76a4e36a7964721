// Adapters of every kind that PEFT writes need no repair.
#include <map>

#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/json.h"
#include "lora/ops/repair.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::filesystem::path kKinds =
    std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/adapter/kinds";

// What repair rightly changes in them, by the field `what` of the changes.
const std::map<std::string, std::string>& deserved() {
  static const std::map<std::string, std::string> changes{
      // PEFT reads both containers; verify warns about the one that can run code (LV102).
      {"pickle", "file"},
      {"pickle_attention", "file"},
      {"pickle_convolution", "file"},
      {"pickle_experts", "file"},
      // Which of two keys counts is decided by an order that no file keeps (LV208).
      {"patterns_overlapping", "configuration"},
      // PEFT before 0.21 loses these biases (LV211).
      {"bias_lora_only-0.17.1", "configuration"},
      {"bias_lora_only-0.18.1", "configuration"},
      {"bias_lora_only-0.19.1", "configuration"},
      {"bias_lora_only-0.20.0", "configuration"},
      // Whole matrices of the base that nobody asked for (LV105).
      {"saved_embeddings_resized", "tensor"},
      // Spellings of early releases and of other programs, which PEFT still reads.
      {"enable_lora", "configuration"},
      {"magnitude_with_weight", "names"},
      {"name_in_keys", "names"},
      {"other_name_in_keys", "names"}};
  return changes;
}

void require_untouched(const std::string& name, const std::filesystem::path& adapter,
                       const Checkpoint* base) {
  const TempDir directory;
  RepairOptions options;
  options.adapter = adapter;
  options.base = base;
  options.output = directory / "out";
  const auto exact = deserved().find(name);
  const auto general = deserved().find(name.substr(0, name.find('-')));
  const std::string allowed = exact != deserved().end()     ? exact->second
                              : general != deserved().end() ? general->second
                                                            : "";
  INFO(name << (base ? " on its base" : " alone"));
  try {
    const RepairReport report = repair(options);
    for (const RepairChange& change : report.changes) {
      INFO(change.what << ": " << change.from << " -> " << change.to << " (" << change.why << ")");
      CHECK(change.what == allowed);
    }
    CHECK(report.is_written == !report.changes.empty());
  } catch (const Error& error) {
    INFO(error.message());
    CHECK(false);
  }
}

}  // namespace

TEST_CASE("adapters of every kind that PEFT wrote have nothing to repair, with and without base") {
  const Json manifest = read_json_file(kKinds / "manifest.json");
  std::size_t seen = 0;
  for (const Json& entry : *manifest.as_array()) {
    if (entry.find("healthy")->as_bool() != true) continue;
    const std::string name = *entry.find("name")->as_string();
    const auto adapter = kKinds / *entry.find("path")->as_string();
    const Checkpoint base = open_checkpoint((kKinds / *entry.find("base")->as_string()).string());
    require_untouched(name, adapter, nullptr);
    require_untouched(name, adapter, &base);
    ++seen;
  }
  REQUIRE(seen >= 80);
}
