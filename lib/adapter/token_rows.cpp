#include "adapter/token_rows.h"

namespace lora {
namespace {

std::vector<std::int64_t> to_indices(const JsonArray& array) {
  std::vector<std::int64_t> indices;
  for (const Json& item : array)
    if (const auto index = item.as_int()) indices.push_back(*index);
  return indices;
}

}  // namespace

std::optional<std::vector<std::int64_t>> token_indices(const AdapterConfig& config,
                                                       const std::string& module_path) {
  const Json* field = config.other.find("trainable_token_indices");
  if (field == nullptr || field->is_null()) return std::nullopt;
  if (const JsonArray* listed = field->as_array()) return to_indices(*listed);
  if (const JsonObject* named = field->as_object())
    for (const auto& [name, indices] : *named)
      // PEFT wraps every module whose path ends with the name, with or without a dot in between.
      if (module_path.ends_with(name) && indices.is_array()) return to_indices(*indices.as_array());
  return std::nullopt;
}

}  // namespace lora
