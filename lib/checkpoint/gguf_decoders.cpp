// Decoders of Llama's kind in GGUF files: a row for each, and what only some have.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "checkpoint/gguf_families.h"
#include "checkpoint/gguf_layout.h"

namespace lora {
namespace {

// What is read of one file.
struct Source {
  const GgufFile& file;
  const GgufMetadata& metadata;
  const GgufSizes& sizes;
};

enum class Norms { before, around, behind };

enum class Experts { none, mixtral, qwen };

struct Family {
  std::string_view architecture;
  std::string_view model_type;
  std::string_view model_class;
  bool has_rotary_pairs = false;  // the converter orders q_proj and k_proj for them
  bool norm_adds_one = false;
  Norms norms = Norms::before;
  bool is_fused = false;
  bool may_rotate_part = false;
  std::string_view activation_key = "hidden_act";
  std::string_view activation = "silu";
  Experts experts = Experts::none;
  void (*add_own)(const Source&, JsonObject& config) = nullptr;
};

Json window_of(const Source& source) {
  const std::int64_t window = source.metadata.integer("attention.sliding_window").value_or(0);
  return window > 0 ? Json(window) : Json();
}

void add_gemma2(const Source& source, JsonObject& config) {
  // The file does not say it. One model of the family has another than the size of a head.
  const bool is_largest = source.sizes.layers == 46;
  config["query_pre_attn_scalar"] =
      is_largest ? source.sizes.width / source.sizes.heads : source.sizes.head;
  const auto cap = [&](const char* key) {
    return source.metadata.has(key) ? Json(source.metadata.positive(key, 1)) : Json();
  };
  config["attn_logit_softcapping"] = cap("attn_logit_softcapping");
  config["final_logit_softcapping"] = cap("final_logit_softcapping");
  config["sliding_window"] = source.metadata.extent("attention.sliding_window", 4096);
}

void add_gemma3(const Source& source, JsonObject& config) {
  add_gemma2(source, config);
  const bool is_largest = source.sizes.layers == 62;
  config["query_pre_attn_scalar"] =
      is_largest ? source.sizes.width / source.sizes.heads : source.sizes.head;
  config["sliding_window_pattern"] = source.metadata.extent("attention.sliding_window_pattern", 6);
  const Json whole = config["rope_parameters"];
  config["rope_parameters"] =
      JsonObject{{"full_attention", whole},
                 {"sliding_attention",
                  JsonObject{{"rope_theta", source.metadata.positive("rope.freq_base_swa", 10000)},
                             {"rope_type", "default"}}}};
}

JsonArray factors_in(const Source& source, const std::string& name) {
  const GgufTensor& tensor = required_tensor(source.file, name);
  if (tensor.format->type != GgufType::f32 ||
      tensor.shape != std::vector<std::int64_t>{source.sizes.rotated / 2})
    throw gguf_fault(source.file, ErrorKind::malformed,
                     "tensor " + name + " has the shape " + shape_to_string(tensor.shape) +
                         ", expected one F32 for each rotary pair")
        .in_tensor(name);
  JsonArray factors;
  for (const float factor :
       Tensor{DType::f32, tensor.shape, tensor.bytes, source.file.mapping}.to_f32())
    factors.emplace_back(static_cast<double>(factor));
  return factors;
}

void add_phi3(const Source& source, JsonObject& config) {
  config.erase("head_dim");
  config["sliding_window"] = window_of(source);
  const std::int64_t original =
      source.metadata.extent("rope.scaling.original_context_length", source.sizes.positions);
  config["original_max_position_embeddings"] = original;
  JsonObject& rope = *config["rope_parameters"].as_object();
  if (source.sizes.rotated != source.sizes.head)
    rope["partial_rotary_factor"] =
        static_cast<double>(source.sizes.rotated) / static_cast<double>(source.sizes.head);
  if (source.file.find("rope_factors_long.weight") == nullptr) return;
  rope["rope_type"] = "longrope";
  rope["long_factor"] = factors_in(source, "rope_factors_long.weight");
  rope["short_factor"] = factors_in(source, "rope_factors_short.weight");
  rope["original_max_position_embeddings"] = original;
}

void add_granite(const Source& source, JsonObject& config) {
  config["attention_multiplier"] = source.metadata.positive("attention.scale", 1);
  config["embedding_multiplier"] = source.metadata.positive("embedding_scale", 1);
  config["residual_multiplier"] = source.metadata.positive("residual_scale", 1);
  config["logits_scaling"] = source.metadata.positive("logit_scale", 1);
}

// llama.cpp has it in the graph of the architecture and not in the file.
void add_qwen2_moe(const Source&, JsonObject& config) { config["norm_topk_prob"] = false; }
void add_qwen3_moe(const Source&, JsonObject& config) { config["norm_topk_prob"] = true; }

constexpr std::array<Family, 12> kFamilies{{
    {.architecture = "llama",
     .model_type = "llama",
     .model_class = "LlamaForCausalLM",
     .has_rotary_pairs = true},
    {.architecture = "llama",
     .model_type = "mixtral",
     .model_class = "MixtralForCausalLM",
     .has_rotary_pairs = true,
     .experts = Experts::mixtral},
    {.architecture = "qwen2", .model_type = "qwen2", .model_class = "Qwen2ForCausalLM"},
    {.architecture = "qwen3", .model_type = "qwen3", .model_class = "Qwen3ForCausalLM"},
    {.architecture = "qwen2moe",
     .model_type = "qwen2_moe",
     .model_class = "Qwen2MoeForCausalLM",
     .experts = Experts::qwen,
     .add_own = add_qwen2_moe},
    {.architecture = "qwen3moe",
     .model_type = "qwen3_moe",
     .model_class = "Qwen3MoeForCausalLM",
     .experts = Experts::qwen,
     .add_own = add_qwen3_moe},
    {.architecture = "gemma",
     .model_type = "gemma",
     .model_class = "GemmaForCausalLM",
     .norm_adds_one = true,
     .activation = "gelu_pytorch_tanh"},
    {.architecture = "gemma2",
     .model_type = "gemma2",
     .model_class = "Gemma2ForCausalLM",
     .norm_adds_one = true,
     .norms = Norms::around,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .add_own = add_gemma2},
    {.architecture = "gemma3",
     .model_type = "gemma3_text",
     .model_class = "Gemma3ForCausalLM",
     .norm_adds_one = true,
     .norms = Norms::around,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .add_own = add_gemma3},
    {.architecture = "phi3",
     .model_type = "phi3",
     .model_class = "Phi3ForCausalLM",
     .is_fused = true,
     .may_rotate_part = true,
     .add_own = add_phi3},
    {.architecture = "granite",
     .model_type = "granite",
     .model_class = "GraniteForCausalLM",
     .has_rotary_pairs = true,
     .add_own = add_granite},
    {.architecture = "olmo2",
     .model_type = "olmo2",
     .model_class = "Olmo2ForCausalLM",
     .norms = Norms::behind},
}};

class Reader {
 public:
  Reader(const Source& source, const Family& family)
      : source_(source), family_(family), sizes_(source.sizes), layout_(source.file) {}

  std::vector<GgufWeight> weights() {
    layout_.take("token_embd.weight", "model.embed_tokens.weight",
                 {sizes_.vocabulary, sizes_.width});
    for (std::int64_t i = 0; i < sizes_.layers; ++i) {
      from_ = "blk." + std::to_string(i) + ".";
      to_ = "model.layers." + std::to_string(i) + ".";
      norms();
      attention();
      if (family_.experts == Experts::none || !layout_.has(from_ + "ffn_gate_inp.weight")) {
        if (family_.experts != Experts::none) plain_layers_.emplace_back(i);
        mlp();
      } else {
        experts();
      }
    }
    norm("output_norm.weight", "model.norm.weight", sizes_.width);
    if (!is_tied())
      layout_.take("output.weight", "lm_head.weight", {sizes_.vocabulary, sizes_.width});
    for (const char* name :
         {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
      layout_.pass_over(name);  // part of the configuration
    return layout_.finish(std::string(family_.architecture));
  }

  bool is_tied() const { return !layout_.has("output.weight"); }

  void add_to(JsonObject& config) const {
    config["attention_bias"] = layout_.has_bias("attn_q");
    config["mlp_bias"] = layout_.has_bias("ffn_up");
    if (family_.experts == Experts::none) return;
    const GgufMetadata& metadata = source_.metadata;
    config["num_experts_per_tok"] = metadata.extent("expert_used_count");
    if (family_.experts == Experts::mixtral) {
      config["num_local_experts"] = metadata.extent("expert_count");
      return;
    }
    config["num_experts"] = metadata.extent("expert_count");
    config["moe_intermediate_size"] = inner_of_experts();
    config["mlp_only_layers"] = plain_layers_;
    if (shared_inner_ > 0) config["shared_expert_intermediate_size"] = shared_inner_;
  }

 private:
  void norm(const std::string& from, const std::string& to, std::int64_t size) {
    GgufWeight form;
    form.adds_one = family_.norm_adds_one;
    layout_.take(from, to, {size}, form);
  }

  void layer_norm(const char* from, const char* to) {
    norm(from_ + from + ".weight", to_ + to + ".weight", sizes_.width);
  }

  void norms() {
    const bool is_around = family_.norms == Norms::around;
    if (family_.norms != Norms::behind) {
      layer_norm("attn_norm", "input_layernorm");
      layer_norm("ffn_norm", is_around ? "pre_feedforward_layernorm" : "post_attention_layernorm");
    }
    if (family_.norms == Norms::before) return;
    layer_norm("post_attention_norm", "post_attention_layernorm");
    layer_norm("post_ffw_norm", "post_feedforward_layernorm");
  }

  void linear(const std::string& from, const std::string& to, std::int64_t outputs,
              std::int64_t inputs, std::int64_t rotary_heads = 0) {
    GgufWeight form;
    if (family_.has_rotary_pairs && rotary_heads > 0) form.rows = GgufRows::rotary;
    form.heads = rotary_heads;
    layout_.linear(from_ + from, to_ + to, {outputs, inputs}, form);
  }

  void attention() {
    const std::int64_t width = sizes_.width;
    const std::int64_t query = sizes_.heads * sizes_.head;
    const std::int64_t key = sizes_.kv_heads * sizes_.head;
    if (family_.is_fused) {
      linear("attn_qkv", "self_attn.qkv_proj", query + 2 * key, width);
    } else {
      linear("attn_q", "self_attn.q_proj", query, width, sizes_.heads);
      linear("attn_k", "self_attn.k_proj", key, width, sizes_.kv_heads);
      linear("attn_v", "self_attn.v_proj", key, width);
    }
    linear("attn_output", "self_attn.o_proj", width, query);
    if (!layout_.has(from_ + "attn_q_norm.weight")) return;
    const bool is_whole = family_.norms == Norms::behind;
    norm(from_ + "attn_q_norm.weight", to_ + "self_attn.q_norm.weight",
         is_whole ? query : sizes_.head);
    norm(from_ + "attn_k_norm.weight", to_ + "self_attn.k_norm.weight",
         is_whole ? key : sizes_.head);
  }

  void mlp() {
    const std::int64_t inner = sizes_.inner;
    if (family_.is_fused) {
      linear("ffn_up", "mlp.gate_up_proj", 2 * inner, sizes_.width);
    } else {
      linear("ffn_gate", "mlp.gate_proj", inner, sizes_.width);
      linear("ffn_up", "mlp.up_proj", inner, sizes_.width);
    }
    linear("ffn_down", "mlp.down_proj", sizes_.width, inner);
  }

  std::int64_t inner_of_experts() const {
    return source_.metadata.extent("expert_feed_forward_length", sizes_.inner);
  }

  void experts() {
    const bool is_mixtral = family_.experts == Experts::mixtral;
    const std::string to = to_ + (is_mixtral ? "block_sparse_moe." : "mlp.");
    const std::int64_t count = source_.metadata.extent("expert_count");
    const std::int64_t inner = inner_of_experts();
    const std::int64_t width = sizes_.width;
    layout_.take(from_ + "ffn_gate_inp.weight", to + "gate.weight", {count, width});
    const auto all = [&](const char* from, const char* mixtral, const char* qwen,
                         std::vector<std::int64_t> shape) {
      layout_.experts(from_ + from + ".weight",
                      to + "experts.#." + (is_mixtral ? mixtral : qwen) + ".weight", count, shape);
    };
    all("ffn_gate_exps", "w1", "gate_proj", {inner, width});
    all("ffn_down_exps", "w2", "down_proj", {width, inner});
    all("ffn_up_exps", "w3", "up_proj", {inner, width});
    if (!layout_.has(from_ + "ffn_gate_shexp.weight")) return;
    const GgufTensor& gate = required_tensor(source_.file, from_ + "ffn_gate_shexp.weight");
    shared_inner_ = gate.shape.front();
    linear("ffn_gate_shexp", "mlp.shared_expert.gate_proj", shared_inner_, width);
    linear("ffn_up_shexp", "mlp.shared_expert.up_proj", shared_inner_, width);
    linear("ffn_down_shexp", "mlp.shared_expert.down_proj", width, shared_inner_);
    layout_.row(from_ + "ffn_gate_inp_shexp.weight", to + "shared_expert_gate.weight", width);
  }

  const Source& source_;
  const Family& family_;
  const GgufSizes& sizes_;
  GgufLayout layout_;
  std::string from_, to_;  // names of the layer's tensors begin so
  JsonArray plain_layers_;
  std::int64_t shared_inner_ = 0;
};

const Family& family_of(const GgufMetadata& metadata, std::string_view architecture) {
  const bool has_experts = metadata.integer("expert_count").value_or(0) > 0;
  return *std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& family) {
    return family.architecture == architecture &&
           (architecture != "llama" || has_experts == (family.experts != Experts::none));
  });
}

}  // namespace

std::vector<std::string> gguf_decoder_names() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies)
    if (names.empty() || names.back() != family.architecture)
      names.emplace_back(family.architecture);
  return names;
}

GgufModel read_gguf_decoder(const GgufFile& file, const std::string& architecture) {
  const GgufMetadata metadata(file, architecture);
  const Family& family = family_of(metadata, architecture);
  const GgufSizes sizes = gguf_sizes(file, metadata);
  const Source source{file, metadata, sizes};
  if ((sizes.rotated != sizes.head && !family.may_rotate_part) || sizes.rotated > sizes.head ||
      sizes.rotated % 2 != 0)
    throw gguf_fault(file, ErrorKind::unsupported,
                     "it rotates " + std::to_string(sizes.rotated) + " of " +
                         std::to_string(sizes.head) +
                         " values of a head, expected all of an even number");
  Reader reader(source, family);
  GgufModel model;
  model.model_type = family.model_type;
  model.config = {{"architectures", JsonArray{family.model_class}},
                  {"head_dim", sizes.head},
                  {std::string(family.activation_key), family.activation},
                  {"hidden_size", sizes.width},
                  {"intermediate_size", sizes.inner},
                  {"max_position_embeddings", sizes.positions},
                  {"model_type", family.model_type},
                  {"num_attention_heads", sizes.heads},
                  {"num_hidden_layers", sizes.layers},
                  {"num_key_value_heads", sizes.kv_heads},
                  {"rms_norm_eps", metadata.positive("attention.layer_norm_rms_epsilon", 1e-6)},
                  {"rope_parameters", gguf_rope(file, metadata, sizes)},
                  {"tie_word_embeddings", reader.is_tied()},
                  {"vocab_size", sizes.vocabulary}};
  model.weights = reader.weights();
  reader.add_to(model.config);
  if (family.add_own != nullptr) family.add_own(source, model.config);
  return model;
}

}  // namespace lora
