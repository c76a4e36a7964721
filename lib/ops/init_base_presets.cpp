#include "ops/init_base_presets.h"

#include "lora/format/json.h"
#include "lora/ops/init_base.h"

namespace lora {
namespace {

JsonObject tiny_llama() {
  return {{"architectures", JsonArray{"LlamaForCausalLM"}},
          {"attention_bias", false},
          {"bos_token_id", 256},
          {"dtype", "float32"},
          {"eos_token_id", 257},
          {"head_dim", 16},
          {"hidden_act", "silu"},
          {"hidden_size", 64},
          {"initializer_range", 0.02},
          {"intermediate_size", 176},
          {"max_position_embeddings", 1024},
          {"mlp_bias", false},
          {"model_type", "llama"},
          {"num_attention_heads", 4},
          {"num_hidden_layers", 2},
          {"num_key_value_heads", 2},
          {"rms_norm_eps", 1e-5},
          {"rope_parameters", JsonObject{{"rope_theta", 10000.0}, {"rope_type", "default"}}},
          {"tie_word_embeddings", false},
          {"vocab_size", 288}};
}

JsonObject tiny_gpt2() {
  return {{"activation_function", "gelu_new"},
          {"architectures", JsonArray{"GPT2LMHeadModel"}},
          {"bos_token_id", 256},
          {"dtype", "float32"},
          {"eos_token_id", 257},
          {"initializer_range", 0.02},
          {"layer_norm_epsilon", 1e-5},
          {"model_type", "gpt2"},
          {"n_embd", 64},
          {"n_head", 4},
          {"n_layer", 2},
          {"n_positions", 512},
          {"tie_word_embeddings", true},
          {"vocab_size", 288}};
}

JsonObject tiny_bert() {
  return {{"architectures", JsonArray{"BertForMaskedLM"}},
          {"dtype", "float32"},
          {"hidden_act", "gelu"},
          {"hidden_size", 64},
          {"initializer_range", 0.02},
          {"intermediate_size", 128},
          {"layer_norm_eps", 1e-12},
          {"max_position_embeddings", 512},
          {"model_type", "bert"},
          {"num_attention_heads", 4},
          {"num_hidden_layers", 2},
          {"pad_token_id", 0},
          {"tie_word_embeddings", true},
          {"type_vocab_size", 2},
          {"vocab_size", 288}};
}

}  // namespace

const std::vector<std::string_view>& init_base_presets() {
  static const std::vector<std::string_view> names{"mlp", "tiny-llama", "tiny-gpt2", "tiny-bert"};
  return names;
}

std::string preset_config(std::string_view name) {
  JsonObject document;
  if (name == "tiny-llama") document = tiny_llama();
  if (name == "tiny-gpt2") document = tiny_gpt2();
  if (name == "tiny-bert") document = tiny_bert();
  return document.empty() ? std::string() : dump_json(Json(std::move(document))) + "\n";
}

}  // namespace lora
