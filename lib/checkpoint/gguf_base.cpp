#include "checkpoint/gguf_base.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::int64_t kMostLayers = 1 << 16;

Error fault(const GgufFile& file, ErrorKind kind, const std::string& reason) {
  return Error(kind, "cannot import GGUF model " + file.path.string() + ": " + reason)
      .in_file(file.path.string());
}

// Metadata keeps F32; the configuration it came from had the shortest decimal that rounds to it.
double as_configured(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), narrow).ptr;
  double shortest = value;
  std::from_chars(text.data(), end, shortest);
  return shortest;
}

// What the metadata of a llama says.
struct Sizes {
  std::int64_t layers, width, inner, heads, kv_heads, head, positions, vocabulary;
};

class Metadata {
 public:
  Metadata(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::int64_t extent(const std::string& key, std::optional<std::int64_t> fallback = {}) const {
    const auto value = file_.integer(prefix_ + key);
    if (!value && !fallback)
      throw fault(file_, ErrorKind::malformed, "its metadata lacks " + prefix_ + key);
    const std::int64_t extent = value.value_or(fallback.value_or(0));
    if (extent < 1 || extent > std::int64_t{1} << 31)
      throw fault(file_, ErrorKind::malformed,
                  prefix_ + key + " is " + std::to_string(extent) + ", expected 1 or more");
    return extent;
  }

  double positive(const std::string& key, double fallback) const {
    const double value = as_configured(file_.number(prefix_ + key).value_or(fallback));
    if (!(value > 0) || !std::isfinite(value))
      throw fault(file_, ErrorKind::malformed,
                  prefix_ + key + " is " + dump_json(value) + ", expected a positive number");
    return value;
  }

  std::optional<std::string_view> text(const std::string& key) const {
    return file_.text(prefix_ + key);
  }
  bool has(const std::string& key) const { return file_.metadata.contains(prefix_ + key); }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

const GgufTensor& required(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr)
    throw fault(file, ErrorKind::malformed, "it lacks tensor " + name).in_tensor(name);
  return *tensor;
}

Sizes sizes_of(const GgufFile& file, const Metadata& metadata) {
  Sizes sizes{};
  sizes.layers = metadata.extent("block_count");
  if (sizes.layers > kMostLayers)
    throw fault(file, ErrorKind::malformed,
                "it names " + std::to_string(sizes.layers) + " layers, expected at most " +
                    std::to_string(kMostLayers));
  sizes.width = metadata.extent("embedding_length");
  sizes.inner = metadata.extent("feed_forward_length");
  sizes.heads = metadata.extent("attention.head_count");
  sizes.kv_heads = metadata.extent("attention.head_count_kv", sizes.heads);
  sizes.positions = metadata.extent("context_length");
  sizes.head =
      metadata.extent("attention.key_length", std::max<std::int64_t>(1, sizes.width / sizes.heads));
  const GgufTensor& words = required(file, "token_embd.weight");
  if (words.shape.size() != 2)
    throw fault(file, ErrorKind::malformed,
                "token_embd.weight has the shape " + shape_to_string(words.shape) +
                    ", expected two extents")
        .in_tensor(words.name);
  sizes.vocabulary = words.shape[0];
  const std::int64_t rotated = metadata.extent("rope.dimension_count", sizes.head);
  if (rotated != sizes.head || sizes.head % 2 != 0)
    throw fault(file, ErrorKind::unsupported,
                "it rotates " + std::to_string(rotated) + " of " + std::to_string(sizes.head) +
                    " values of a head, expected all of an even number");
  return sizes;
}

// Factors on the rotary frequencies stand in the file without the numbers that they come from. The
// Llama 3 models have these numbers but for the factor, which the slowest frequencies show.
std::optional<JsonObject> rope_of_factors(const GgufFile& file, double theta, const Sizes& sizes) {
  const GgufTensor* tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) return std::nullopt;
  constexpr double kLow = 1, kHigh = 4, kOriginal = 8192;
  constexpr double kPi = 3.14159265358979323846;
  const std::int64_t pairs = sizes.head / 2;
  const auto refuse = [&] {
    return fault(file, ErrorKind::unsupported,
                 "its rotary frequencies are scaled by factors (rope_freqs.weight) that no known "
                 "configuration gives")
        .in_tensor(tensor->name);
  };
  if (tensor->format->type != GgufType::f32 || tensor->shape != std::vector{pairs}) throw refuse();
  const std::vector<float> factors =
      Tensor{DType::f32, tensor->shape, tensor->bytes, file.mapping}.to_f32();
  const double factor = std::round(static_cast<double>(factors.back()));
  if (!(factor >= 1) || factor > 1e6) throw refuse();
  for (std::int64_t i = 0; i < pairs; ++i) {
    const double wave =
        2 * kPi * std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(sizes.head));
    double expected = factor;
    if (wave < kOriginal / kHigh) {
      expected = 1;
    } else if (wave <= kOriginal / kLow) {
      const double smooth = (kOriginal / wave - kLow) / (kHigh - kLow);
      expected = 1 / ((1 - smooth) / factor + smooth);
    }
    const double found = factors[static_cast<std::size_t>(i)];
    if (!(std::fabs(found - expected) <= 1e-4 * expected)) throw refuse();
  }
  return JsonObject{{"factor", factor},
                    {"high_freq_factor", kHigh},
                    {"low_freq_factor", kLow},
                    {"original_max_position_embeddings", static_cast<std::int64_t>(kOriginal)},
                    {"rope_theta", theta},
                    {"rope_type", "llama3"}};
}

JsonObject rope_of(const GgufFile& file, const Metadata& metadata, const Sizes& sizes) {
  const double theta = metadata.positive("rope.freq_base", 10000);
  if (auto scaled = rope_of_factors(file, theta, sizes)) return std::move(*scaled);
  const std::string type(metadata.text("rope.scaling.type").value_or("none"));
  if (type == "linear")
    return {{"factor", metadata.positive("rope.scaling.factor", 1)},
            {"rope_theta", theta},
            {"rope_type", "linear"}};
  if (type != "none")
    throw fault(file, ErrorKind::unsupported,
                "its rotary scaling is \"" + type + "\", expected none, linear or that of Llama 3");
  return {{"rope_theta", theta}, {"rope_type", "default"}};
}

// Where the tensors of a layer belong, and their shapes.
class Layout {
 public:
  Layout(const GgufFile& file, const Sizes& sizes) : file_(file), sizes_(sizes) {}

  std::vector<GgufWeight> weights() {
    const std::int64_t width = sizes_.width;
    const std::int64_t query = sizes_.heads * sizes_.head;
    const std::int64_t key = sizes_.kv_heads * sizes_.head;
    take("token_embd", "model.embed_tokens", {sizes_.vocabulary, width});
    for (std::int64_t i = 0; i < sizes_.layers; ++i) {
      const std::string from = "blk." + std::to_string(i) + ".";
      const std::string to = "model.layers." + std::to_string(i) + ".";
      take(from + "attn_norm", to + "input_layernorm", {width});
      linear(from + "attn_q", to + "self_attn.q_proj", {query, width}, sizes_.heads);
      linear(from + "attn_k", to + "self_attn.k_proj", {key, width}, sizes_.kv_heads);
      linear(from + "attn_v", to + "self_attn.v_proj", {key, width});
      linear(from + "attn_output", to + "self_attn.o_proj", {width, query});
      take(from + "ffn_norm", to + "post_attention_layernorm", {width});
      linear(from + "ffn_gate", to + "mlp.gate_proj", {sizes_.inner, width});
      linear(from + "ffn_up", to + "mlp.up_proj", {sizes_.inner, width});
      linear(from + "ffn_down", to + "mlp.down_proj", {width, sizes_.inner});
    }
    take("output_norm", "model.norm", {width});
    if (!is_tied()) take("output", "lm_head", {sizes_.vocabulary, width});
    seen_.insert("rope_freqs.weight");  // part of the configuration
    for (const GgufTensor& tensor : file_.tensors)
      if (!seen_.contains(tensor.name))
        throw fault(file_, ErrorKind::unsupported,
                    "tensor " + tensor.name + " has no place in a llama model")
            .in_tensor(tensor.name);
    return std::move(weights_);
  }

  bool is_tied() const { return file_.find("output.weight") == nullptr; }
  bool has_attention_bias() const { return biases_.contains("attn_q"); }
  bool has_mlp_bias() const { return biases_.contains("ffn_up"); }

 private:
  void take(const std::string& from, const std::string& to, std::vector<std::int64_t> shape,
            std::int64_t heads = 0, const char* kind = ".weight") {
    const GgufTensor& tensor = required(file_, from + kind);
    if (tensor.shape != shape)
      throw fault(file_, ErrorKind::malformed,
                  "tensor " + tensor.name + " has the shape " + shape_to_string(tensor.shape) +
                      ", expected " + shape_to_string(shape))
          .in_tensor(tensor.name);
    if (tensor.shape.size() == 1 && !tensor.format->storage)
      throw fault(file_, ErrorKind::unsupported,
                  "tensor " + tensor.name + " is a vector stored as " +
                      std::string(tensor.format->name) + ", expected plain numbers")
          .in_tensor(tensor.name);
    seen_.insert(tensor.name);
    weights_.push_back({to + kind, &tensor, heads});
  }

  void linear(const std::string& from, const std::string& to, std::vector<std::int64_t> shape,
              std::int64_t heads = 0) {
    const std::int64_t outputs = shape[0];
    take(from, to, std::move(shape), heads);
    if (file_.find(from + ".bias") == nullptr) return;
    take(from, to, {outputs}, heads, ".bias");
    biases_.insert(from.substr(from.rfind('.') + 1));
  }

  const GgufFile& file_;
  const Sizes& sizes_;
  std::vector<GgufWeight> weights_;
  std::set<std::string> seen_;
  std::set<std::string> biases_;  // kinds of layers that have one somewhere
};

// Converters keep norms in F32 whatever the model had; where a narrower dtype holds their values
// too, it was the model's.
DType dtype_of(const std::vector<GgufWeight>& weights) {
  std::optional<DType> common;
  for (const GgufWeight& weight : weights) {
    if (weight.tensor->shape.size() < 2) continue;
    const auto storage = weight.tensor->format->storage;
    if (!storage || (common && *common != *storage)) return DType::f32;
    common = storage;
  }
  if (!common || *common == DType::f32) return DType::f32;
  for (const GgufWeight& weight : weights) {
    if (weight.tensor->shape.size() >= 2) continue;
    const std::vector<double> exact = load_gguf_weight(weight, DType::f64).to_f64();
    if (load_gguf_weight(weight, *common).to_f64() != exact) return DType::f32;
  }
  return *common;
}

void add_token_ids(const GgufFile& file, JsonObject& config) {
  for (const auto& [name, key] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                  {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                  {"pad_token_id", "tokenizer.ggml.padding_token_id"}}) {
    const auto id = file.integer(key);
    config[name] = id ? Json(*id) : Json();
  }
}

}  // namespace

GgufBase open_gguf_base(const std::filesystem::path& path) {
  GgufBase base;
  base.file = read_gguf(path);
  const GgufFile& file = base.file;
  const auto architecture = file.text("general.architecture");
  if (!architecture)
    throw fault(file, ErrorKind::malformed, "its metadata lacks general.architecture");
  if (*architecture != "llama")
    throw fault(file, ErrorKind::unsupported,
                "its architecture is " + dump_json(*architecture) + ", expected \"llama\"");
  const Metadata metadata(file, "llama.");
  if (metadata.has("expert_count") && file.integer("llama.expert_count").value_or(0) > 0)
    throw fault(file, ErrorKind::unsupported, "it is a mixture of experts");
  const Sizes sizes = sizes_of(file, metadata);
  const JsonObject rope = rope_of(file, metadata, sizes);
  Layout layout(file, sizes);
  base.weights = layout.weights();
  base.dtype = dtype_of(base.weights);
  base.config = {{"architectures", JsonArray{"LlamaForCausalLM"}},
                 {"attention_bias", layout.has_attention_bias()},
                 {"head_dim", sizes.head},
                 {"hidden_act", "silu"},
                 {"hidden_size", sizes.width},
                 {"intermediate_size", sizes.inner},
                 {"max_position_embeddings", sizes.positions},
                 {"mlp_bias", layout.has_mlp_bias()},
                 {"model_type", "llama"},
                 {"num_attention_heads", sizes.heads},
                 {"num_hidden_layers", sizes.layers},
                 {"num_key_value_heads", sizes.kv_heads},
                 {"rms_norm_eps", metadata.positive("attention.layer_norm_rms_epsilon", 1e-6)},
                 {"rope_parameters", rope},
                 {"tie_word_embeddings", layout.is_tied()},
                 {"vocab_size", sizes.vocabulary}};
  add_token_ids(file, base.config);
  base.tokenizer = gguf_tokenizer_files(file, base.notes);
  return base;
}

}  // namespace lora
