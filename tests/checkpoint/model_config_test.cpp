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

TEST_CASE("sliding windows have the family's defaults and pattern") {
  const auto decoder = [](const std::string& more) {
    return *parse(R"({"num_hidden_layers": 4, "model_type": )" + more + "}").decoder;
  };
  using Layers = std::vector<bool>;
  const Layers all(4, true);
  CHECK(decoder(R"("mistral")").sliding_window == 4096);
  CHECK(decoder(R"("mistral")").slides == all);
  CHECK(decoder(R"("mistral", "sliding_window": null)").slides.empty());
  CHECK(decoder(R"("qwen2", "sliding_window": 9)").slides.empty());
  const DecoderConfig qwen = decoder(
      R"("qwen2", "sliding_window": 9, "use_sliding_window": true, "max_window_layers": 3)");
  CHECK(qwen.sliding_window == 9);
  CHECK(qwen.slides == Layers{false, false, false, true});
  CHECK(decoder(R"("gemma2")").slides == Layers{true, false, true, false});
  CHECK(decoder(R"("gemma3_text", "sliding_window_pattern": 3)").slides ==
        Layers{true, true, false, true});
  CHECK(decoder(R"("gemma2", "layer_types": ["full_attention", "full_attention",
      "sliding_attention", "full_attention"])")
            .slides == Layers{false, false, true, false});
  require_error(ErrorKind::malformed, "one entry for each of the 4 layers",
                [&] { decoder(R"("gemma2", "layer_types": ["full_attention"])"); });
  require_error(ErrorKind::malformed, "chunked", [&] {
    decoder(R"("qwen3", "layer_types": ["full_attention", "chunked", "chunked", "chunked"])");
  });
}

TEST_CASE("parts of a decoder that the engine lacks are named") {
  const auto reason = [](const std::string& more) {
    return parse(R"({"num_hidden_layers": 4, "model_type": )" + more + "}").unsupported_reason;
  };
  const auto names = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(names(reason(R"("mixtral", "output_router_logits": true)"), "output_router_logits"));
  CHECK(names(reason(R"("mixtral", "router_jitter_noise": 0.1)"), "router_jitter_noise"));
  CHECK(names(reason(R"("gemma", "use_bidirectional_attention": true)"),
              "use_bidirectional_attention"));
  CHECK(names(reason(R"("qwen2", "layer_types": ["sliding_attention", "full_attention",
      "full_attention", "full_attention"])"),
              "use_sliding_window"));
  CHECK(names(reason(R"("llama", "hidden_act": "no_such")"), "hidden_act \"no_such\""));
  CHECK(names(parse(R"({"model_type": "no_such"})").unsupported_reason, "gemma2"));
  require_error(ErrorKind::malformed, "num_experts_per_tok",
                [&] { reason(R"("mixtral", "num_experts_per_tok": 9)"); });
  require_error(
      ErrorKind::malformed, "short_factor\" is a list of 1, expected a list of 2 numbers", [&] {
        reason(R"("phi3", "head_dim": 4, "rope_scaling": {"type": "su", "short_factor": [1.0]})");
      });
  require_error(ErrorKind::malformed, "short_factor\" is missing",
                [&] { reason(R"("phi3", "rope_scaling": {"type": "su"})"); });
  CHECK(names(reason(R"("llama", "quantization_config": {"quant_method": "gptq"})"),
              "quantised with gptq are not supported, expected a checkpoint in F32"));
}

TEST_CASE("an unknown family is named with the nearest known one") {
  const auto reason = [](const std::string& name) {
    return parse(R"({"model_type": ")" + name + "\"}").unsupported_reason;
  };
  CHECK(reason("qwen3_next")
            .find("\"qwen3_next\" is not supported (the nearest by name that is: "
                  "qwen3_moe)") != std::string::npos);
  CHECK(reason("llama4_text").find("that is: llama)") != std::string::npos);
  CHECK(reason("mamba").find("nearest") == std::string::npos);
}

TEST_CASE("gemma 3 has an embedding for sliding layers of its own in either dialect") {
  const DecoderConfig old = *parse(R"({"model_type": "gemma3_text", "rope_theta": 5e5,
      "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}})")
                                 .decoder;
  CHECK(old.rope.theta == 5e5);
  CHECK(old.rope.factor == 8);
  CHECK(old.sliding_rope->theta == 2e4);
  CHECK(old.sliding_rope->factor == 1);
  const DecoderConfig plain = *parse(R"({"model_type": "gemma3_text"})").decoder;
  CHECK(plain.rope.theta == 1e6);
  CHECK(plain.sliding_rope->theta == 1e4);
  const DecoderConfig nested = *parse(R"({"model_type": "gemma3_text", "rope_parameters": {
      "full_attention": {"rope_theta": 7.0}, "sliding_attention": {"rope_theta": 3.0}}})")
                                    .decoder;
  CHECK(nested.rope.theta == 7);
  CHECK(nested.sliding_rope->theta == 3);
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
  CHECK_FALSE(parse(llama_config(R"(, "hidden_act": "no_such_function")")).decoder);
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
