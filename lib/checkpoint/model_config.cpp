#include "lora/checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/bert_config.h"
#include "checkpoint/config_fields.h"
#include "checkpoint/decoder_families.h"
#include "checkpoint/encoder_layout.h"
#include "checkpoint/gpt2_config.h"
#include "checkpoint/gpt_neox_config.h"
#include "checkpoint/mlp_config.h"
#include "checkpoint/parse_decoder.h"

namespace lora {
namespace {

constexpr std::array<std::pair<DType, const char*>, 4> kDTypeNames{{{DType::f64, "float64"},
                                                                    {DType::f32, "float32"},
                                                                    {DType::f16, "float16"},
                                                                    {DType::bf16, "bfloat16"}}};

// Text families whose configuration class ties the output head unless config.json says otherwise;
// written into old files only when it differs.
const std::set<std::string>& families_that_tie() {
  static const std::set<std::string> families{"albert",      "bart",    "bert",
                                              "big_bird",    "biogpt",  "bloom",
                                              "camembert",   "cohere",  "cohere2",
                                              "ctrl",        "deberta", "deberta-v2",
                                              "distilbert",  "electra", "ernie",
                                              "ernie4_5",    "esm",     "falcon",
                                              "gemma",       "gemma2",  "gemma3",
                                              "gemma3_text", "gemma3n", "gemma3n_text",
                                              "gpt-sw3",     "gpt2",    "gpt_bigcode",
                                              "gpt_neo",     "lfm2",    "longformer",
                                              "longt5",      "m2m_100", "mamba",
                                              "marian",      "mbart",   "modernbert",
                                              "mpnet",       "mpt",     "mt5",
                                              "openai-gpt",  "opt",     "pegasus",
                                              "roberta",     "smollm3", "starcoder2",
                                              "t5gemma",     "whisper", "xglm",
                                              "xlm-roberta", "xlnet",   "switch_transformers"};
  return families;
}

std::vector<std::string_view> runnable_families() {
  std::vector<std::string_view> names;
  for (const DecoderFamily& family : decoder_families()) names.push_back(family.model_type);
  for (const char* name :
       {"gpt2", "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "gpt_neox", "mlp"})
    names.push_back(name);
  return names;
}

// The family whose name begins most alike, which is often the one it grew out of.
std::string_view nearest_family(std::string_view model_type) {
  std::size_t most = 2;  // fewer letters in common mean nothing
  std::string_view nearest;
  for (const std::string_view name : runnable_families()) {
    std::size_t common = 0;
    while (common < std::min(name.size(), model_type.size()) && name[common] == model_type[common])
      ++common;
    if (common > most) {
      most = common;
      nearest = name;
    }
  }
  return nearest;
}

std::string unknown_family(const std::string& model_type) {
  std::string text = "model_type \"" + model_type + "\" is not supported";
  if (const std::string_view nearest = nearest_family(model_type); !nearest.empty())
    text += " (the nearest by name that is: " + std::string(nearest) + ")";
  text += ", expected ";
  const std::vector<std::string_view> names = runnable_families();
  for (std::size_t i = 0; i < names.size(); ++i)
    text += std::string(i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + std::string(names[i]);
  return text;
}

}  // namespace

std::string config_dtype_name(DType dtype) {
  for (const auto& [value, name] : kDTypeNames)
    if (value == dtype) return name;
  return {};
}

std::optional<DType> dtype_from_config_name(const std::string& name) {
  constexpr std::string_view kPrefix = "torch.";
  const std::string bare = name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
  for (const auto& [value, known] : kDTypeNames)
    if (bare == known) return value;
  return std::nullopt;
}

ModelConfig parse_model_config(Json document, const std::string& context) {
  if (!document.is_object())
    throw Error(ErrorKind::malformed, "cannot use " + context + ": found " +
                                          std::string(document.type_name()) +
                                          ", expected a JSON object")
        .in_file(context);
  ModelConfig config;
  config.document = std::move(document);
  const ConfigFields fields(config.document, context);
  const auto model_type = fields.text("model_type");
  if (!model_type) throw fields.missing("model_type", "the name of a model family");
  config.model_type = *model_type;
  if (const auto names = fields.texts("architectures"); names && !names->empty())
    config.architecture = names->front();
  config.dtype = fields.text("dtype").value_or(fields.text("torch_dtype").value_or(""));
  if (const Json* quantization = fields.object("quantization_config"))
    config.quantization = ConfigFields(*quantization, context, "quantization_config.")
                              .text("quant_method")
                              .value_or("an unnamed method");
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings")
                                   .value_or(families_that_tie().contains(config.model_type));

  if (find_decoder_family(config.model_type) != nullptr) {
    parse_decoder(config, context);
  } else if (config.model_type == "gpt2") {
    parse_gpt2(config, context);
  } else if (find_encoder_layout(config.model_type)) {
    parse_bert(config, context);
  } else if (config.model_type == "gpt_neox") {
    parse_gpt_neox(config, context);
  } else if (config.model_type == "mlp") {
    parse_mlp(config, context);
  } else {
    config.unsupported_reason = unknown_family(config.model_type);
  }
  return config;
}

void apply_generation_config(ModelConfig& config, const Json& document,
                             const std::string& context) {
  if (!document.is_object())
    throw Error(ErrorKind::malformed, "cannot use " + context + ": found " +
                                          std::string(document.type_name()) +
                                          ", expected a JSON object")
        .in_file(context);
  const auto ids = ConfigFields(document, context).ids("eos_token_id");
  if (!ids) return;
  if (config.layout) config.layout->eos_token_ids = *ids;
  if (config.decoder) config.decoder->eos_token_ids = *ids;
  if (config.gpt2) config.gpt2->eos_token_ids = *ids;
  if (config.gpt_neox) config.gpt_neox->eos_token_ids = *ids;
}

std::optional<TokenModel> ModelConfig::token_model() const {
  TokenModel model;
  if (decoder) {
    model.vocab_size = decoder->vocab_size;
    model.max_positions = decoder->max_position_embeddings;
    model.is_causal = true;
    model.eos_token_ids = decoder->eos_token_ids;
  } else if (gpt2) {
    model.vocab_size = gpt2->vocab_size;
    model.max_positions = gpt2->max_position_embeddings;
    model.is_causal = !gpt2->head.is_classifier();
    model.head = gpt2->head;
    model.eos_token_ids = gpt2->eos_token_ids;
  } else if (gpt_neox) {
    model.vocab_size = gpt_neox->vocab_size;
    model.max_positions = gpt_neox->max_position_embeddings;
    model.is_causal = !gpt_neox->head.is_classifier();
    model.head = gpt_neox->head;
    model.eos_token_ids = gpt_neox->eos_token_ids;
  } else if (bert) {
    model.vocab_size = bert->vocab_size;
    model.max_positions = bert->max_tokens;
    model.head = bert->head;
  } else {
    return std::nullopt;
  }
  return model;
}

}  // namespace lora
