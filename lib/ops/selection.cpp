#include "ops/selection.h"

#include <algorithm>
#include <cctype>

#include "ops/rules/grouping.h"

namespace lora {
namespace {

bool is_all_linear(const ModuleSelector& selector) {
  const auto* text = std::get_if<std::string>(&selector);
  if (text == nullptr) return false;
  std::string lower = *text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower == "all-linear";
}

bool is_empty(const ModuleSelector& selector) {
  if (const auto* text = std::get_if<std::string>(&selector)) return text->empty();
  const auto* names = std::get_if<std::vector<std::string>>(&selector);
  return names != nullptr && names->empty();
}

std::string layers_text(std::vector<std::int64_t> layers) {
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return rules::ranges(layers);
}

// With ensure_weight_tying PEFT writes factors for a head that it does not list.
bool is_tied_head(const LoraModule& module, const AdapterConfig& config) {
  if (!module.tied_to.empty()) return true;
  const Json* tying = config.other.find("ensure_weight_tying");
  return tying != nullptr && tying->as_bool() == true && module.module_path.ends_with("lm_head");
}

}  // namespace

Selection::Selection(const AdapterConfig& config) : config_(config) {
  needs_base_ = std::holds_alternative<std::monostate>(config.target_modules) ||
                is_all_linear(config.target_modules);
  if (!needs_base_) matcher_.emplace(config);
}

bool Selection::selects(const std::string& module_path) const {
  return matcher_ && matcher_->check(module_path) == TargetMatcher::Verdict::targeted;
}

std::string Selection::refusal(const LoraModule& module) const {
  if (module.kind == LayerKind::parameter || is_tied_head(module, config_)) return {};
  return refusal(rules::pattern_path(module));
}

std::string Selection::refusal(const std::string& module_path) const {
  if (!matcher_) return {};
  if (is_empty(config_.target_modules)) return "target_modules is empty, which PEFT refuses";
  switch (matcher_->check(module_path)) {
    case TargetMatcher::Verdict::targeted:
      return {};
    case TargetMatcher::Verdict::excluded:
      return "exclude_modules takes it out";
    case TargetMatcher::Verdict::saved:
      return "modules_to_save has it";
    case TargetMatcher::Verdict::filtered:
      return "layers_to_transform is " + layers_text(config_.layers_to_transform);
    case TargetMatcher::Verdict::unmatched:
      return "target_modules does not select it";
  }
  return {};
}

}  // namespace lora
