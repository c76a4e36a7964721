#include <algorithm>

#include "lora/checkpoint/checkpoint.h"
#include "lora/format/json.h"
#include "lora/format/safetensors.h"
#include "lora/ops/init_base.h"
#include "lora/text/tokenizer.h"
#include "support/testing.h"

namespace lora {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden";

InitBaseOptions importing(const std::filesystem::path& output) {
  InitBaseOptions options;
  options.from = (kGolden / "gguf_model/llama.gguf").string();
  options.output = output;
  return options;
}

TEST_CASE("init-base makes a base of a GGUF file") {
  const testing::TempDir dir;
  const InitBaseReport report = init_base(importing(dir / "base"));
  REQUIRE(report.dtype == "F32");
  REQUIRE(report.tensors == 21);
  const Checkpoint base = open_checkpoint((dir / "base").string());
  const TensorMap golden = read_safetensors(kGolden / "gguf_model/llama.safetensors").tensors;
  REQUIRE(base.tensors.size() == golden.size());
  for (const auto& [name, tensor] : golden) {
    INFO(name);
    REQUIRE(base.find(name)->to_f32() == tensor.to_f32());
  }
  REQUIRE(base.config->decoder);
  REQUIRE(base.config->dtype == "float32");
  REQUIRE(std::filesystem::exists(dir / "base" / "base.lock.json"));
}

TEST_CASE(
    "init-base rounds a GGUF file to the dtype that is asked for, and plans without writing") {
  const testing::TempDir dir;
  InitBaseOptions options = importing(dir / "base");
  options.dtype = DType::bf16;
  options.dry_run = true;
  const InitBaseReport plan = init_base(options);
  REQUIRE(testing::entry_count(dir.path()) == 0);
  options.dry_run = false;
  const InitBaseReport report = init_base(options);
  REQUIRE(plan.weight_bytes == report.weight_bytes);
  REQUIRE(plan.files.size() == report.files.size());
  for (std::size_t i = 0; i < plan.files.size(); ++i)
    REQUIRE(plan.files[i].name == report.files[i].name);
  REQUIRE(open_checkpoint((dir / "base").string()).config->dtype == "bfloat16");
}

TEST_CASE("the tokenizer of a GGUF file splits as the original") {
  const testing::TempDir dir;
  init_base(importing(dir / "base"));
  const Tokenizer rebuilt = Tokenizer::from_directory(dir / "base");
  const Tokenizer original = Tokenizer::from_file(kGolden / "text/smollm.tokenizer.json");
  // The file cannot say that a token takes spaces along, as those after the first 420 do.
  constexpr TokenId kPlain = 420;
  REQUIRE(rebuilt.special_ids() == original.special_ids());
  REQUIRE(rebuilt.eos_id() == 2);
  const Json corpus = read_json_file(kGolden / "text/corpus.json");
  std::size_t compared = 0;
  for (const Json& text : *corpus.as_array()) {
    const auto ids = original.encode(*text.as_string());
    if (std::any_of(ids.begin(), ids.end(), [&](TokenId id) { return id >= kPlain; })) continue;
    ++compared;
    REQUIRE(rebuilt.encode(*text.as_string()) == ids);
    REQUIRE(rebuilt.decode(ids, false) == original.decode(ids, false));
  }
  REQUIRE(compared > 80);
  REQUIRE(testing::read_file(dir / "base" / "chat_template.jinja") ==
          "{% for message in messages %}{{ message['content'] }}{% endfor %}");
}

}  // namespace
}  // namespace lora
