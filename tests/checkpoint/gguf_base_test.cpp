#include "checkpoint/gguf_base.h"

#include "lora/checkpoint/model_config.h"
#include "lora/format/safetensors.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

const std::filesystem::path kGolden =
    std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/gguf_model";

// The golden file with one text replaced by another of the same size.
void refuses(ErrorKind kind, std::string_view part, std::string_view from, std::string_view to) {
  const testing::TempDir dir;
  std::string content = testing::read_file(kGolden / "llama.gguf");
  const std::size_t place = content.find(from);
  REQUIRE(place != std::string::npos);
  REQUIRE(from.size() == to.size());
  content.replace(place, to.size(), to);
  testing::write_file(dir / "m.gguf", content);
  require_error(kind, part, [&] { open_gguf_base(dir / "m.gguf"); });
}

TEST_CASE("a llama of a GGUF file has the weights that transformers reads from it") {
  const GgufBase base = open_gguf_base(kGolden / "llama.gguf");
  const TensorMap golden = read_safetensors(kGolden / "llama.safetensors").tensors;
  REQUIRE(base.weights.size() == golden.size());
  REQUIRE(base.dtype == DType::f32);
  REQUIRE(base.notes.empty());
  for (const GgufWeight& weight : base.weights) {
    INFO(weight.name);
    const Tensor& want = golden.at(weight.name);
    for (const int threads : {1, 3}) {
      const Tensor found = load_gguf_weight(weight, DType::f32, threads);
      REQUIRE(found.shape == want.shape);
      REQUIRE(found.to_f32() == want.to_f32());
    }
    REQUIRE(load_gguf_weight(weight, DType::bf16).to_f32() == want.cast(DType::bf16).to_f32());
  }
}

TEST_CASE("the configuration of a GGUF file is that of the model") {
  const GgufBase base = open_gguf_base(kGolden / "llama.gguf");
  const ModelConfig config = parse_model_config(Json(base.config), "config.json");
  REQUIRE(config.unsupported_reason.empty());
  REQUIRE(config.decoder->hidden_size == 32);
  REQUIRE(config.decoder->num_layers == 2);
  REQUIRE(config.decoder->num_heads == 4);
  REQUIRE(config.decoder->num_kv_heads == 2);
  REQUIRE(config.decoder->rms_norm_eps == 1e-5);
  REQUIRE(config.decoder->rope.theta == 50000.0);
  REQUIRE(config.decoder->max_position_embeddings == 128);
  REQUIRE(config.decoder->eos_token_ids == std::vector<std::int64_t>{2});
  REQUIRE(config.decoder->pad_token_id == std::nullopt);
  REQUIRE_FALSE(config.tie_word_embeddings);
}

TEST_CASE("a GGUF model that cannot be one is refused by what is wrong") {
  refuses(ErrorKind::unsupported, "its architecture is \"llamb\"", "llama", "llamb");
  refuses(ErrorKind::malformed, "it lacks tensor blk.1.ffn_up.weight", "blk.1.ffn_up.",
          "blk.1.ffn_uq.");
  refuses(ErrorKind::malformed, "lacks llama.block_count", "llama.block_count",
          "llama.block_counu");
  // With the length in front: the name ends others too.
  const std::string length("\x0d\0\0\0\0\0\0\0", 8);
  refuses(ErrorKind::unsupported, "tensor output.weighu has no place", length + "output.weight",
          length + "output.weighu");
}

}  // namespace
}  // namespace lora
