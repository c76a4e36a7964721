#include "checkpoint/decoder_families.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "checkpoint/head_config.h"

namespace lora {
namespace {

using Layers = std::vector<bool>;

Layers every_layer(const DecoderConfig& decoder) {
  return Layers(static_cast<std::size_t>(decoder.num_layers), true);
}

// `layer_types` of the file, else the family's pattern.
template <typename Pattern>
Layers sliding_layers(const ConfigFields& fields, const DecoderConfig& decoder, Pattern pattern) {
  Layers slides(static_cast<std::size_t>(decoder.num_layers));
  const auto types = fields.texts("layer_types");
  if (types && types->size() != slides.size())
    throw fields.wrong("layer_types", "a list of " + std::to_string(types->size()),
                       "one entry for each of the " + std::to_string(slides.size()) + " layers");
  for (std::size_t i = 0; i < slides.size(); ++i) {
    if (!types) {
      slides[i] = pattern(i);
      continue;
    }
    const std::string& type = (*types)[i];
    if (type != "sliding_attention" && type != "full_attention")
      throw fields.wrong("layer_types", "\"" + type + "\"",
                         "\"sliding_attention\" or \"full_attention\"");
    slides[i] = type == "sliding_attention";
  }
  if (std::none_of(slides.begin(), slides.end(), [](bool one) { return one; })) slides.clear();
  return slides;
}

// A window that is null or absent (with no default) is none.
void read_window_of_all(const ConfigFields& fields, DecoderConfig& decoder,
                        std::optional<std::int64_t> fallback = std::nullopt) {
  const auto window = fields.has("sliding_window") ? fields.extent("sliding_window") : fallback;
  if (!window) return;
  decoder.sliding_window = *window;
  decoder.slides = every_layer(decoder);
}

std::optional<std::int64_t> qwen_window(const ConfigFields& fields) {
  if (!fields.boolean("use_sliding_window").value_or(false)) return std::nullopt;
  return fields.has("sliding_window") ? fields.extent("sliding_window")
                                      : std::optional<std::int64_t>(4096);
}

template <typename Pattern>
std::string read_qwen_window(const ConfigFields& fields, DecoderConfig& decoder, Pattern pattern) {
  const auto window = qwen_window(fields);
  decoder.slides =
      sliding_layers(fields, decoder, [&](std::size_t i) { return window && pattern(i); });
  if (!window && !decoder.slides.empty())
    return "layer_types names sliding layers, but use_sliding_window is off";
  decoder.sliding_window = window.value_or(0);
  return {};
}

std::string read_llama(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.output_bias = fields.boolean("attention_bias").value_or(false);
  decoder.mlp_bias = fields.boolean("mlp_bias").value_or(false);
  return {};
}

std::string read_mistral(const ConfigFields& fields, DecoderConfig& decoder) {
  read_window_of_all(fields, decoder, 4096);
  return {};
}

std::int64_t max_window_layers(const ConfigFields& fields) {
  return fields.integer("max_window_layers", 0, 1 << 16).value_or(28);
}

std::string read_qwen2(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.qkv_bias = true;
  const auto first = static_cast<std::size_t>(max_window_layers(fields));
  return read_qwen_window(fields, decoder, [&](std::size_t i) { return i >= first; });
}

void read_attention_bias(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.output_bias = fields.boolean("attention_bias").value_or(false);
}

std::string read_qwen3(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.head_norm = DecoderConfig::HeadNorm::each;
  read_attention_bias(fields, decoder);
  const auto first = static_cast<std::size_t>(max_window_layers(fields));
  return read_qwen_window(fields, decoder, [&](std::size_t i) { return i >= first; });
}

std::string read_gemma(const ConfigFields& fields, DecoderConfig& decoder) {
  read_attention_bias(fields, decoder);
  decoder.norm_adds_one = true;
  decoder.embedding_class = decoder.class_prefix + "TextScaledWordEmbedding";
  decoder.embedding_multiplier = std::sqrt(static_cast<double>(decoder.hidden_size));
  // The first published files say gelu and mean its approximation.
  if (decoder.activation == "gelu") decoder.activation = "gelu_pytorch_tanh";
  if (fields.boolean("use_bidirectional_attention").value_or(false))
    return "use_bidirectional_attention is not supported";
  return {};
}

std::string read_gemma2(const ConfigFields& fields, DecoderConfig& decoder) {
  const std::string activation = decoder.activation;
  std::string reason = read_gemma(fields, decoder);
  decoder.activation = activation;
  decoder.norm_places = DecoderConfig::NormPlaces::around;
  decoder.attention_scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256));
  const auto cap = [&](const char* key, double fallback) {
    if (!fields.has(key)) return fallback;
    return fields.number(key) ? fields.positive(key, 1) : 0.0;
  };
  decoder.attention_softcap = cap("attn_logit_softcapping", 50);
  decoder.logits_softcap = cap("final_logit_softcapping", 30);
  read_window_of_all(fields, decoder, 4096);
  decoder.slides = sliding_layers(fields, decoder, [](std::size_t i) { return (i + 1) % 2 != 0; });
  return reason;
}

std::string read_gemma3(const ConfigFields& fields, DecoderConfig& decoder) {
  std::string reason = read_gemma2(fields, decoder);
  decoder.model_class = "Gemma3TextModel";
  decoder.embedding_class = "Gemma3TextScaledWordEmbedding";
  decoder.head_norm = DecoderConfig::HeadNorm::each;
  const auto no_default = [&](const char* key, double& cap) {
    if (!fields.has(key)) cap = 0;
  };
  no_default("attn_logit_softcapping", decoder.attention_softcap);
  no_default("final_logit_softcapping", decoder.logits_softcap);
  const auto period = fields.integer("sliding_window_pattern", 1, 1 << 16).value_or(6);
  decoder.slides = sliding_layers(fields, decoder, [&](std::size_t i) {
    return (i + 1) % static_cast<std::size_t>(period) != 0;
  });
  return reason;
}

std::string read_phi3(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.has_fused_projections = true;
  decoder.residual_dropout = dropout_rate(fields, "resid_pdrop", 0);
  read_window_of_all(fields, decoder);
  return {};
}

std::string read_granite(const ConfigFields& fields, DecoderConfig& decoder) {
  read_llama(fields, decoder);
  decoder.embedding_multiplier = fields.positive("embedding_multiplier", 1);
  decoder.residual_multiplier = fields.positive("residual_multiplier", 1);
  decoder.attention_scale = fields.positive("attention_multiplier", 1);
  decoder.logits_divisor = fields.positive("logits_scaling", 1);
  return {};
}

std::string read_olmo2(const ConfigFields& fields, DecoderConfig& decoder) {
  read_attention_bias(fields, decoder);
  decoder.norm_places = DecoderConfig::NormPlaces::behind;
  decoder.head_norm = DecoderConfig::HeadNorm::whole;
  return {};
}

std::string read_experts(const ConfigFields& fields, DecoderConfig& decoder, std::int64_t count,
                         std::int64_t per_token, std::int64_t inner) {
  ExpertConfig& experts = decoder.experts.emplace();
  experts.count =
      fields.extent("num_local_experts").value_or(fields.extent("num_experts").value_or(count));
  experts.per_token = fields.extent("num_experts_per_tok").value_or(per_token);
  experts.intermediate_size = inner;
  experts.is_sparse = every_layer(decoder);
  if (experts.per_token > experts.count)
    throw fields.wrong("num_experts_per_tok", std::to_string(experts.per_token),
                       "at most the " + std::to_string(experts.count) + " experts");
  if (fields.boolean("output_router_logits").value_or(false))
    return "the router's own loss (output_router_logits) is not supported";
  return {};
}

std::string read_mixtral(const ConfigFields& fields, DecoderConfig& decoder) {
  read_window_of_all(fields, decoder);
  if (fields.number("router_jitter_noise").value_or(0) != 0)
    return "router_jitter_noise is not supported";
  return read_experts(fields, decoder, 8, 2, decoder.intermediate_size);
}

std::string read_qwen_experts(const ConfigFields& fields, DecoderConfig& decoder,
                              std::int64_t count, std::int64_t per_token, std::int64_t inner) {
  std::string reason = read_experts(fields, decoder, count, per_token,
                                    fields.extent("moe_intermediate_size").value_or(inner));
  ExpertConfig& experts = *decoder.experts;
  experts.normalizes_weights = fields.boolean("norm_topk_prob").value_or(false);
  const auto step = fields.integer("decoder_sparse_step", 1, 1 << 16).value_or(1);
  for (std::size_t i = 0; i < experts.is_sparse.size(); ++i)
    experts.is_sparse[i] = (static_cast<std::int64_t>(i) + 1) % step == 0;
  const auto plain = fields.integers("mlp_only_layers", 0, decoder.num_layers - 1);
  if (plain)
    for (const std::int64_t layer : *plain)
      experts.is_sparse[static_cast<std::size_t>(layer)] = false;
  return reason;
}

std::string read_qwen2_moe(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.qkv_bias = fields.boolean("qkv_bias").value_or(true);
  const auto below = static_cast<std::size_t>(max_window_layers(fields));
  std::string reason = read_qwen_window(
      fields, decoder, [&](std::size_t i) { return (i + 1) % 2 != 0 && i < below; });
  const std::string other = read_qwen_experts(fields, decoder, 60, 4, 1408);
  decoder.experts->shared_intermediate_size =
      fields.extent("shared_expert_intermediate_size").value_or(5632);
  return reason.empty() ? other : reason;
}

std::string read_qwen3_moe(const ConfigFields& fields, DecoderConfig& decoder) {
  decoder.head_norm = DecoderConfig::HeadNorm::each;
  read_attention_bias(fields, decoder);
  if (const auto window = qwen_window(fields)) {
    decoder.sliding_window = *window;
    decoder.slides = every_layer(decoder);
  }
  std::string reason = read_qwen_experts(fields, decoder, 128, 8, 768);
  decoder.experts->router_is_last = true;
  return reason;
}

constexpr auto kNoId = std::nullopt;

constexpr std::array<DecoderFamily, 13> kFamilies{{
    {.model_type = "llama", .class_prefix = "Llama", .read_own = read_llama},
    {.model_type = "mistral",
     .class_prefix = "Mistral",
     .intermediate_size = 14336,
     .num_kv_heads = 8,
     .max_position_embeddings = 131072,
     .read_own = read_mistral},
    {.model_type = "qwen2",
     .class_prefix = "Qwen2",
     .vocab_size = 151936,
     .intermediate_size = 22016,
     .num_kv_heads = 32,
     .max_position_embeddings = 32768,
     .bos_token_id = kNoId,
     .eos_token_id = kNoId,
     .read_own = read_qwen2},
    {.model_type = "qwen3",
     .class_prefix = "Qwen3",
     .vocab_size = 151936,
     .intermediate_size = 22016,
     .num_kv_heads = 32,
     .head_dim = 128,
     .max_position_embeddings = 32768,
     .bos_token_id = kNoId,
     .eos_token_id = kNoId,
     .read_own = read_qwen3},
    {.model_type = "gemma",
     .class_prefix = "Gemma",
     .vocab_size = 256000,
     .hidden_size = 3072,
     .intermediate_size = 24576,
     .num_layers = 28,
     .num_heads = 16,
     .num_kv_heads = 16,
     .head_dim = 256,
     .max_position_embeddings = 8192,
     .activation = "gelu_pytorch_tanh",
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .read_own = read_gemma},
    {.model_type = "gemma2",
     .class_prefix = "Gemma2",
     .vocab_size = 256000,
     .hidden_size = 2304,
     .intermediate_size = 9216,
     .num_layers = 26,
     .num_heads = 8,
     .num_kv_heads = 4,
     .head_dim = 256,
     .max_position_embeddings = 8192,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .read_own = read_gemma2},
    {.model_type = "gemma3_text",
     .class_prefix = "Gemma3",
     .vocab_size = 262208,
     .hidden_size = 2304,
     .intermediate_size = 9216,
     .num_layers = 26,
     .num_heads = 8,
     .num_kv_heads = 4,
     .head_dim = 256,
     .max_position_embeddings = 131072,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .has_layered_rope = true,
     .read_own = read_gemma3},
    {.model_type = "phi3",
     .class_prefix = "Phi3",
     .vocab_size = 32064,
     .hidden_size = 3072,
     .intermediate_size = 8192,
     .max_position_embeddings = 4096,
     .rms_norm_eps = 1e-5,
     .eos_token_id = 32000,
     .pad_token_id = 32000,
     .rope = {.has_partial_rotation = true},
     .read_own = read_phi3},
    {.model_type = "granite", .class_prefix = "Granite", .read_own = read_granite},
    {.model_type = "olmo2",
     .class_prefix = "Olmo2",
     .vocab_size = 50304,
     .rms_norm_eps = 1e-5,
     .bos_token_id = kNoId,
     .eos_token_id = 50279,
     .pad_token_id = 1,
     .read_own = read_olmo2},
    {.model_type = "mixtral",
     .class_prefix = "Mixtral",
     .intermediate_size = 14336,
     .num_kv_heads = 8,
     .max_position_embeddings = 131072,
     .rms_norm_eps = 1e-5,
     .rope = {.theta = 1e6},
     .read_own = read_mixtral},
    {.model_type = "qwen2_moe",
     .class_prefix = "Qwen2Moe",
     .vocab_size = 151936,
     .hidden_size = 2048,
     .intermediate_size = 5632,
     .num_layers = 24,
     .num_heads = 16,
     .num_kv_heads = 16,
     .max_position_embeddings = 32768,
     .bos_token_id = kNoId,
     .eos_token_id = kNoId,
     .read_own = read_qwen2_moe},
    {.model_type = "qwen3_moe",
     .class_prefix = "Qwen3Moe",
     .vocab_size = 151936,
     .hidden_size = 2048,
     .intermediate_size = 6144,
     .num_layers = 24,
     .num_heads = 32,
     .num_kv_heads = 4,
     .max_position_embeddings = 32768,
     .bos_token_id = kNoId,
     .eos_token_id = kNoId,
     .read_own = read_qwen3_moe},
}};

}  // namespace

std::span<const DecoderFamily> decoder_families() { return kFamilies; }

const DecoderFamily* find_decoder_family(std::string_view model_type) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const auto& family) {
    return family.model_type == model_type;
  });
  return found == kFamilies.end() ? nullptr : &*found;
}

}  // namespace lora
