#include "ops/set_claims.h"

namespace lora {

bool has_kasa(const AdapterConfig& config) {
  const Json* kasa = config.other.find("kasa_config");
  return kasa != nullptr && !kasa->is_null();
}

std::set<std::string> target_parameters_of(const AdapterConfig& config) {
  std::set<std::string> names;
  const Json* field = config.other.find("target_parameters");
  if (const JsonArray* array = field == nullptr ? nullptr : field->as_array())
    for (const Json& item : *array)
      if (const std::string* name = item.as_string()) names.insert(*name);
  return names;
}

bool has_weight_shape(const LoraModule& module) {
  return (module.kind == LayerKind::linear || module.kind == LayerKind::conv1d ||
          module.kind == LayerKind::embedding) &&
         module.blocks_a == 1 && module.blocks_b == 1;
}

std::string owner_of_parameter(const std::string& base_name) {
  return base_name.substr(0, base_name.rfind('.'));
}

}  // namespace lora
