#include "checkpoint/mlp_config.h"

#include <algorithm>
#include <array>
#include <set>

#include "checkpoint/config_fields.h"

namespace lora {
namespace {

constexpr std::array<std::string_view, 7> kActivations{"relu", "gelu",    "gelu_tanh", "silu",
                                                       "tanh", "sigmoid", "identity"};
constexpr std::array<std::string_view, 4> kFinalActivations{"none", "log_softmax", "softmax",
                                                            "sigmoid"};

template <std::size_t N>
std::string joined(const std::array<std::string_view, N>& names) {
  std::string text;
  for (const std::string_view name : names) {
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text;
}

template <std::size_t N>
void check_activation(const std::array<std::string_view, N>& known, const char* what,
                      const std::string& name) {
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw Error(ErrorKind::usage, "unknown " + std::string(what) + " \"" + name +
                                      "\", expected one of " + joined(known));
}

}  // namespace

void check_mlp_activations(const std::string& activation, const std::string& final_activation) {
  check_activation(kActivations, "activation", activation);
  check_activation(kFinalActivations, "final activation", final_activation);
}

void parse_mlp(ModelConfig& config, const std::string& context) {
  const ConfigFields fields(config.document, context);
  MlpConfig mlp;
  const auto sizes = fields.integers("hidden_sizes", 1, std::numeric_limits<std::int32_t>::max());
  if (!sizes) throw fields.missing("hidden_sizes", "the sizes from input to output");
  if (sizes->size() < 2)
    throw fields.wrong("hidden_sizes", std::to_string(sizes->size()) + " sizes",
                       "at least an input and an output size");
  mlp.hidden_sizes = *sizes;
  const auto layers = fields.texts("layers");
  if (!layers) throw fields.missing("layers", "the module names in order");
  if (layers->size() + 1 != sizes->size())
    throw fields.wrong("layers", std::to_string(layers->size()) + " names",
                       "one less than the " + std::to_string(sizes->size()) + " hidden_sizes");
  if (std::set<std::string>(layers->begin(), layers->end()).size() != layers->size() ||
      std::count(layers->begin(), layers->end(), "") != 0)
    throw fields.wrong("layers", "empty or repeated names", "distinct module names");
  mlp.layers = *layers;

  mlp.activation = fields.text("activation").value_or("relu");
  mlp.final_activation = fields.text("final_activation").value_or("none");
  const auto known = [&](const auto& names, const char* key, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw fields.wrong(key, "\"" + name + "\"", "one of " + joined(names));
  };
  known(kActivations, "activation", mlp.activation);
  known(kFinalActivations, "final_activation", mlp.final_activation);
  config.mlp = std::move(mlp);
}

JsonObject mlp_document(const MlpConfig& mlp, const std::string& dtype) {
  JsonArray sizes(mlp.hidden_sizes.begin(), mlp.hidden_sizes.end());
  JsonArray layers(mlp.layers.begin(), mlp.layers.end());
  return {{"model_type", "mlp"},          {"dtype", dtype},
          {"layers", std::move(layers)},  {"hidden_sizes", std::move(sizes)},
          {"activation", mlp.activation}, {"final_activation", mlp.final_activation}};
}

}  // namespace lora
