// config.json of base models: Hugging Face's two dialects and this project's mlp.
//
// A field that is absent has the default of transformers' configuration class for that model_type
// (5.23), which is not always zero. Null counts as absent except where the class gives null a
// meaning of its own (mistral: `sliding_window`, `num_key_value_heads`).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/dtype.h"
#include "lora/checkpoint/decoder_config.h"
#include "lora/format/json.h"

namespace lora {

/// What a transformer does with its last hidden states.
struct HeadConfig {
  enum class Kind {
    language_model,           ///< a score for each token of the vocabulary, at each position
    sequence_classification,  ///< num_labels scores for a whole sequence
    token_classification,     ///< num_labels scores at each position
  };
  Kind kind = Kind::language_model;
  std::int64_t num_labels = 2;  ///< length of `id2label`, else `num_labels`
  /// Of a sequence classifier: regression | single_label_classification |
  /// multi_label_classification; empty: what the labels of a batch say, as in transformers.
  std::string problem_type;
  bool is_classifier() const { return kind != Kind::language_model; }
};

/// GPT-2 (model_type gpt2): learned positions, Conv1D layers, a norm in front of each block.
struct Gpt2Config {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t max_position_embeddings = 0;
  std::string activation;  ///< one of transformers' names, see activation_class
  double layer_norm_eps = 1e-5;
  double embedding_dropout = 0, attention_dropout = 0, residual_dropout = 0;  ///< in training
  bool scale_attention = true;  ///< scores divided by the root of the head's width
  bool scale_by_layer = false;  ///< scores divided by 1 + layer index as well
  bool tie_word_embeddings = true;
  HeadConfig head;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
};

/// BERT and encoders of its kind (model_type bert, roberta, xlm-roberta, camembert, distilbert; no
/// decoder): learned positions, a norm behind each block.
struct BertConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t max_position_embeddings = 0;
  std::int64_t max_tokens = 0;   ///< of a sequence: fewer where positions begin behind padding's id
  std::int64_t token_types = 0;  ///< 0: token types are no input
  std::string activation;
  double layer_norm_eps = 1e-12;
  double hidden_dropout = 0, attention_dropout = 0, classifier_dropout = 0;  ///< in training
  bool tie_word_embeddings = true;
  HeadConfig head;
  std::optional<std::int64_t> pad_token_id;  ///< its embedding gets no gradient
};

/// GPT-NeoX (model_type gpt_neox): rotary positions on a part of each head, query, key and value of
/// a head side by side in one layer.
struct GptNeoxConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t max_position_embeddings = 0;
  std::string activation;
  double layer_norm_eps = 1e-5;
  RopeConfig rope;
  std::int64_t rotary_size = 0;       ///< of a head's values the first that are rotated, even
  bool has_parallel_residual = true;  ///< attention and mlp both read the block's input
  bool attention_bias = true;
  double hidden_dropout = 0, attention_dropout = 0, classifier_dropout = 0;  ///< in training
  bool tie_word_embeddings = false;
  HeadConfig head;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
};

/// What feeding token ids to a model needs to know, whatever its family.
struct TokenModel {
  std::int64_t vocab_size = 0;
  std::int64_t max_positions = 0;
  bool is_causal = false;  ///< predicts the next token: can generate, trains on plain text
  HeadConfig head;
  std::vector<std::int64_t> eos_token_ids;
};

/// A plain chain of Linear layers with one activation between them.
struct MlpConfig {
  std::vector<std::string> layers;         ///< module paths in order ("fc1", "net.2")
  std::vector<std::int64_t> hidden_sizes;  ///< in, ..., out: layers.size() + 1 entries
  /// relu | gelu | gelu_tanh | silu | tanh | sigmoid | identity, after every layer but the last.
  std::string activation = "relu";
  std::string final_activation = "none";  ///< none | log_softmax | softmax | sigmoid
};

struct ModelConfig {
  Json document;             ///< as read
  std::string model_type;    ///< "llama", "mistral", "mlp", ...
  std::string architecture;  ///< first of `architectures`, empty when absent
  std::string dtype;         ///< `dtype` or `torch_dtype` ("bfloat16"), empty when absent
  std::string quantization;  ///< quantization_config.quant_method, empty when not quantised
  bool tie_word_embeddings = false;
  /// Sizes of a decoder of the Llama kind, whether or not the engine can run it.
  std::optional<DecoderConfig> layout;
  /// The same, set only when the engine can run it as decoder.
  std::optional<DecoderConfig> decoder;
  std::optional<Gpt2Config> gpt2;  ///< set only when the engine can run it, as the following are
  std::optional<BertConfig> bert;
  std::optional<GptNeoxConfig> gpt_neox;
  std::optional<MlpConfig> mlp;
  /// Why none of decoder, gpt2, bert, gpt_neox and mlp is set, for the message of a verb that needs
  /// one.
  std::string unsupported_reason;

  /// Set for every model that the engine can run on token ids.
  std::optional<TokenModel> token_model() const;
  bool is_transformers() const { return model_type != "mlp"; }
};

/// Throws Error(malformed) naming the field. A model_type this program cannot run is fine here
/// (decoder to mlp stay empty, unsupported_reason says why): light verbs need no architecture.
/// `context` names the document, usually its path. Of `rope_scaling` and `rope_parameters` the
/// former wins, as in transformers; inside either, `rope_theta` precedes the top-level one.
ModelConfig parse_model_config(Json document, const std::string& context);

/// Takes the end-of-text ids of generation_config.json, which precede those of config.json.
void apply_generation_config(ModelConfig& config, const Json& document, const std::string& context);

/// The config.json of an mlp whose weights have this dtype.
JsonObject mlp_document(const MlpConfig& mlp, const std::string& dtype);

/// Class of transformers 5.23 (or torch) behind a name of its activation table ("gelu_new":
/// "NewGELUActivation"); empty for names that the engine does not compute.
std::string_view activation_class(std::string_view name);

/// "float32" for F32 and so on for the float dtypes; empty for others.
std::string config_dtype_name(DType dtype);
/// Inverse of config_dtype_name; also accepts the spelling "torch.float32".
std::optional<DType> dtype_from_config_name(const std::string& name);

}  // namespace lora
