#include "checkpoint/head_config.h"

#include <array>
#include <utility>

namespace lora {
namespace {

constexpr std::string_view kSequenceClassifier = "ForSequenceClassification";
constexpr std::string_view kTokenClassifier = "ForTokenClassification";

constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kActivations{
    {{"gelu", "GELUActivation"},
     {"gelu_python", "GELUActivation"},
     {"gelu_new", "NewGELUActivation"},
     {"gelu_fast", "FastGELUActivation"},
     {"gelu_pytorch_tanh", "GELUTanh"},
     {"quick_gelu", "QuickGELUActivation"},
     {"linear", "LinearActivation"},
     {"relu", "ReLU"},
     {"relu6", "ReLU6"},
     {"relu2", "ReLUSquaredActivation"},
     {"leaky_relu", "LeakyReLU"},
     {"hardswish", "Hardswish"},
     {"sigmoid", "Sigmoid"},
     {"silu", "SiLUActivation"},
     {"swish", "SiLU"},
     {"tanh", "Tanh"}}};

}  // namespace

std::string_view activation_class(std::string_view name) {
  for (const auto& [known, class_name] : kActivations)
    if (known == name) return class_name;
  return {};
}

HeadConfig parse_head(const ModelConfig& config, const ConfigFields& fields) {
  HeadConfig head;
  if (config.architecture.ends_with(kSequenceClassifier))
    head.kind = HeadConfig::Kind::sequence_classification;
  if (config.architecture.ends_with(kTokenClassifier))
    head.kind = HeadConfig::Kind::token_classification;
  if (const Json* labels = fields.object("id2label")) {
    head.num_labels = static_cast<std::int64_t>(labels->as_object()->size());
    if (head.num_labels == 0) throw fields.wrong("id2label", "{}", "at least one label");
  } else {
    head.num_labels = fields.extent("num_labels").value_or(2);
  }
  head.problem_type = fields.text("problem_type").value_or("");
  return head;
}

double dropout_rate(const ConfigFields& fields, std::string_view key, double fallback) {
  const double rate = fields.number(key).value_or(fallback);
  if (!(rate >= 0 && rate < 1))
    throw fields.wrong(key, dump_json(rate), "a number from 0 to below 1");
  return rate;
}

std::string unsupported_architecture(const ModelConfig& config, const ConfigFields& fields,
                                     std::string_view language_model, bool with_token_classifier) {
  for (const char* key : {"add_cross_attention", "is_decoder"})
    if (fields.boolean(key).value_or(false)) return std::string(key) + " is not supported";
  if (!config.quantization.empty())
    return "weights quantised with " + config.quantization +
           " are not supported, expected a checkpoint in F32, BF16 or F16";
  const std::string& name = config.architecture;
  if (name.empty() || name == language_model || name.ends_with(kSequenceClassifier)) return {};
  if (with_token_classifier && name.ends_with(kTokenClassifier)) return {};
  return "architecture " + name + " is not supported, expected " + std::string(language_model) +
         (with_token_classifier ? ", a sequence or a token classifier"
                                : " or a sequence classifier");
}

std::string unsupported_activation(std::string_view key, const std::string& name) {
  if (!activation_class(name).empty()) return {};
  return std::string(key) + " \"" + name + "\" is not supported";
}

void require_whole_heads(const ConfigFields& fields, std::string_view key, std::int64_t width,
                         std::int64_t heads) {
  if (width % heads != 0)
    throw fields.wrong(key, std::to_string(width),
                       "a multiple of the " + std::to_string(heads) + " attention heads");
}

}  // namespace lora
