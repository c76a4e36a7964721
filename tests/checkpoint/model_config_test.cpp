#include "lora/checkpoint/model_config.h"

#include "checkpoint_fixture.h"

namespace lora {
namespace {

using testing::llama_config;
using testing::require_error;

ModelConfig parse(const std::string& text) {
  return parse_model_config(parse_json(text, "config.json"), "config.json");
}

}  // namespace

TEST_CASE("an empty llama config has the defaults of transformers' LlamaConfig") {
  const ModelConfig config = parse(R"({"model_type": "llama"})");
  REQUIRE(config.decoder);
  const DecoderConfig& d = *config.decoder;
  CHECK(d.vocab_size == 32000);
  CHECK(d.hidden_size == 4096);
  CHECK(d.intermediate_size == 11008);
  CHECK(d.num_layers == 32);
  CHECK(d.num_kv_heads == 32);
  CHECK(d.head_dim == 128);
  CHECK(d.max_position_embeddings == 2048);
  CHECK(d.rms_norm_eps == 1e-6);
  CHECK(d.rope.theta == 10000);
  CHECK_FALSE(d.tie_word_embeddings);
  CHECK(d.eos_token_ids == std::vector<std::int64_t>{2});
  CHECK(d.bos_token_id == 1);
}

TEST_CASE("mistral differs from llama where its class does") {
  const ModelConfig absent = parse(R"({"model_type": "mistral", "sliding_window": null})");
  REQUIRE(absent.decoder);
  CHECK(absent.decoder->num_kv_heads == 8);
  CHECK(absent.decoder->intermediate_size == 14336);
  CHECK(absent.decoder->max_position_embeddings == 131072);
  const ModelConfig null_heads =
      parse(R"({"model_type": "mistral", "sliding_window": null, "num_key_value_heads": null})");
  CHECK(null_heads.decoder->num_kv_heads == 32);
}

TEST_CASE("a sliding window that matters keeps mistral from being a decoder, with the reason") {
  const ModelConfig implicit = parse(R"({"model_type": "mistral"})");
  CHECK_FALSE(implicit.decoder);
  CHECK(implicit.layout);
  CHECK(implicit.unsupported_reason.find("sliding window of 4096") != std::string::npos);
  const ModelConfig covering = parse(
      R"({"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 4096})");
  CHECK(covering.decoder);
}

TEST_CASE("both dialects of the rotary embedding are read, rope_scaling first") {
  const auto rope = [](const std::string& more) { return parse(llama_config(more)).decoder->rope; };
  CHECK(rope(R"(, "rope_theta": 5000.0)").theta == 5000);
  CHECK(
      rope(R"(, "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}, "rope_theta": 5.0)")
          .theta == 7);
  const RopeConfig linear = rope(R"(, "rope_scaling": {"type": "linear", "factor": 2.0})");
  CHECK(linear.type == RopeConfig::Type::linear);
  CHECK(linear.factor == 2);
  const std::string scaling = R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 16})";
  CHECK(rope(R"(, "rope_scaling": )" + scaling).original_max_position_embeddings == 16);
  CHECK(rope(R"(, "rope_parameters": {"rope_type": "default"}, "rope_scaling": )" + scaling).type ==
        RopeConfig::Type::llama3);
  const RopeConfig fallback = rope(R"(, "rope_parameters": {"rope_type": "llama3", "factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0})");
  CHECK(fallback.original_max_position_embeddings == 64);
}

TEST_CASE("a rotary embedding that cannot be computed gives a reason, never a default") {
  for (const char* type : {"yarn", "dynamic", "no-such-type"}) {
    const ModelConfig config =
        parse(llama_config(R"(, "rope_scaling": {"rope_type": ")" + std::string(type) + R"("})"));
    CHECK_FALSE(config.decoder);
    CHECK(config.unsupported_reason.find(type) != std::string::npos);
  }
  CHECK_FALSE(parse(llama_config(R"(, "partial_rotary_factor": 0.5)")).decoder);
  CHECK_FALSE(parse(llama_config(R"(, "hidden_act": "gelu")")).decoder);
}

TEST_CASE("end-of-text ids come as integer, list or null, and generation_config.json precedes") {
  using Ids = std::vector<std::int64_t>;
  CHECK(parse(llama_config(R"(, "eos_token_id": 7)")).decoder->eos_token_ids == Ids{7});
  CHECK(parse(llama_config(R"(, "eos_token_id": [7, 9])")).decoder->eos_token_ids == Ids{7, 9});
  CHECK(parse(llama_config(R"(, "eos_token_id": null)")).decoder->eos_token_ids.empty());
  ModelConfig config = parse(llama_config());
  apply_generation_config(config, parse_json(R"({"eos_token_id": [3, 4]})", "g"), "g");
  CHECK(config.decoder->eos_token_ids == Ids{3, 4});
  apply_generation_config(config, parse_json("{}", "g"), "g");
  CHECK(config.decoder->eos_token_ids == Ids{3, 4});
}

TEST_CASE("dtype, ties and quantisation are recorded in either spelling") {
  CHECK(parse(llama_config(R"(, "torch_dtype": "bfloat16")")).dtype == "bfloat16");
  CHECK(parse(llama_config(R"(, "dtype": "float16")")).dtype == "float16");
  CHECK(parse(R"({"model_type": "gpt2"})").tie_word_embeddings);
  CHECK_FALSE(parse(R"({"model_type": "gpt2", "tie_word_embeddings": false})").tie_word_embeddings);
  const ModelConfig quantised =
      parse(llama_config(R"(, "quantization_config": {"quant_method": "gptq"})"));
  CHECK(quantised.quantization == "gptq");
  CHECK_FALSE(quantised.decoder);
  CHECK(dtype_from_config_name("torch.bfloat16") == DType::bf16);
  CHECK_FALSE(dtype_from_config_name("int8"));
}

TEST_CASE("wrong fields of config.json are malformed and named") {
  const auto refused = [](const std::string& text, const std::string& part) {
    require_error(ErrorKind::malformed, part, [&] { parse(text); });
  };
  refused("[]", "found array, expected a JSON object");
  refused("{}", "\"model_type\" is missing");
  refused(R"({"model_type": 3})", "\"model_type\" is 3, expected a string");
  refused(llama_config(R"(, "head_dim": "x")"), "\"head_dim\" is \"x\"");
  refused(llama_config(R"(, "head_dim": 3)"), "expected an even number");
  refused(llama_config(R"(, "rms_norm_eps": -1.0)"), "expected a positive number");
  refused(R"({"model_type": "llama", "vocab_size": 3.9})", "\"vocab_size\" is 3.9");
  refused(R"({"model_type": "llama", "vocab_size": 0})", "\"vocab_size\" is 0");
  refused(R"({"model_type": "llama", "hidden_size": 10, "num_attention_heads": 4})",
          "\"hidden_size\" is 10, expected a multiple of num_attention_heads 4");
  refused(R"({"model_type": "llama", "num_key_value_heads": 5})",
          "multiple of num_key_value_heads");
  refused(llama_config(R"(, "rope_scaling": {"type": "linear"})"),
          "\"rope_scaling.factor\" is missing");
  refused(llama_config(R"(, "rope_scaling": 3)"), "expected an object");
  refused(llama_config(R"(, "eos_token_id": "x")"), "\"eos_token_id\"");
}

TEST_CASE("an mlp config names its layers and sizes") {
  const ModelConfig config = parse(
      R"({"model_type": "mlp", "layers": ["a", "b"], "hidden_sizes": [3, 4, 2], "activation": "tanh"})");
  REQUIRE(config.mlp);
  CHECK(config.mlp->layers == std::vector<std::string>{"a", "b"});
  CHECK(config.mlp->activation == "tanh");
  CHECK(config.mlp->final_activation == "none");
  CHECK_FALSE(config.is_transformers());
  CHECK(parse(dump_json(Json(mlp_document(*config.mlp, "float32")))).mlp->hidden_sizes ==
        std::vector<std::int64_t>{3, 4, 2});
  const auto refused = [](const std::string& rest, const std::string& part) {
    require_error(ErrorKind::malformed, part,
                  [&] { parse(R"({"model_type": "mlp")" + rest + "}"); });
  };
  refused("", "\"hidden_sizes\" is missing");
  refused(R"(, "hidden_sizes": [3, 4])", "\"layers\" is missing");
  refused(R"(, "hidden_sizes": [3], "layers": [])", "at least an input and an output");
  refused(R"(, "hidden_sizes": [3, 4], "layers": ["a", "b"])", "one less than the 2");
  refused(R"(, "hidden_sizes": [3, 4, 5], "layers": ["a", "a"])", "distinct module names");
  refused(R"(, "hidden_sizes": [3, 4], "layers": ["a"], "activation": "step")", "one of relu");
}

TEST_CASE("a family that is not known is no error, only a reason") {
  const ModelConfig config = parse(R"({"model_type": "t5"})");
  CHECK_FALSE(config.decoder);
  CHECK(config.unsupported_reason.find("\"t5\"") != std::string::npos);
}

}  // namespace lora
