#include <algorithm>

#include "lora/adapter/config.h"

namespace lora {
namespace {

constexpr std::string_view kLoraGa = "lora_ga";

bool is_olora(const std::string& name) {
  constexpr std::string_view lower = "olora";
  return std::equal(name.begin(), name.end(), lower.begin(), lower.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

}  // namespace

// PEFT compares olora without case, the beginnings of pissa and corda, and the others whole.
std::string base_changing_init(const AdapterConfig& config) {
  const std::string* name = config.init_lora_weights.as_string();
  const bool changes =
      name != nullptr && (name->starts_with("pissa") || name->starts_with("corda") ||
                          is_olora(*name) || *name == "loftq" || *name == kLoraGa);
  return changes ? *name : std::string();
}

bool changes_base_on_load(const AdapterConfig& config) {
  const std::string init = base_changing_init(config);
  return !init.empty() && init != kLoraGa;
}

}  // namespace lora
