#include "ops/diff_config.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>

namespace lora {
namespace {

// Fields that change what a loaded adapter computes (PEFT 0.21.2); docs/formats.md has them with
// their meaning. Everything else is read by training, or by nobody.
constexpr std::pair<std::string_view, std::string_view> kEffects[] = {
    {"alora_invocation_tokens", "where in the text the update applies"},
    {"alpha_pattern", "scaling of the matched modules"},
    {"arrow_config", "routing between adapters"},
    {"bias", "which biases are replaced"},
    {"ensure_weight_tying", "whether tied embeddings share an adapter"},
    {"exclude_modules", "which modules are adapted"},
    {"fan_in_fan_out", "orientation of the base weight"},
    {"init_lora_weights", "whether loading rewrites the base weights"},
    {"kasa_config", "truncation of the base weights"},
    {"layer_replication", "number and order of the layers"},
    {"layers_pattern", "which layers are adapted"},
    {"layers_to_transform", "which layers are adapted"},
    {"lora_alpha", "scaling of the update"},
    {"lora_bias", "bias of the update"},
    {"modules_to_save", "which modules are replaced"},
    {"qalora_group_size", "pooling of the inputs"},
    {"r", "rank, and scaling of the update"},
    {"rank_pattern", "rank and scaling of the matched modules"},
    {"target_modules", "which modules are adapted"},
    {"target_parameters", "which parameters are adapted"},
    {"trainable_token_indices", "which token rows are replaced"},
    {"use_bdlora", "block structure of the update"},
    {"use_dora", "magnitude and direction instead of a sum"},
    {"use_qalora", "pooling of the inputs"},
    {"use_rslora", "scaling: alpha / sqrt(r) instead of alpha / r"},
};

std::string_view effect_of(std::string_view field) {
  const auto found = std::find_if(std::begin(kEffects), std::end(kEffects),
                                  [&](const auto& entry) { return entry.first == field; });
  return found == std::end(kEffects) ? std::string_view() : found->second;
}

// Sets are written in no particular order by PEFT.
Json normalised(const std::string& field, Json value) {
  if (field != "target_modules" && field != "exclude_modules" && field != "modules_to_save" &&
      field != "target_parameters")
    return value;
  if (JsonArray* array = value.as_array())
    std::sort(array->begin(), array->end(), [](const Json& a, const Json& b) {
      return dump_json(a, kCompactStyle) < dump_json(b, kCompactStyle);
    });
  return value;
}

}  // namespace

std::vector<FieldDifference> diff_fields(const AdapterConfig& a, const AdapterConfig& b) {
  const Json left = to_json(a);
  const Json right = to_json(b);
  std::set<std::string> names;
  for (const JsonMember& member : *left.as_object()) names.insert(member.first);
  for (const JsonMember& member : *right.as_object()) names.insert(member.first);
  std::vector<FieldDifference> differences;
  for (const std::string& name : names) {
    const auto text = [&](const Json& document) {
      const Json* value = document.find(name);
      return value ? dump_json(normalised(name, *value), kCompactStyle) : std::string();
    };
    FieldDifference difference{name, text(left), text(right), std::string(effect_of(name))};
    if (difference.a == difference.b) continue;
    // The other initialisations leave a saved adapter as it is.
    if (name == "init_lora_weights" && base_changing_init(a).empty() &&
        base_changing_init(b).empty())
      difference.effect.clear();
    differences.push_back(std::move(difference));
  }
  return differences;
}

}  // namespace lora
