// Which fields of a configuration decide that a module gets LoRA factors, or none: as far as names
// tell, without a base.
#pragma once

#include <optional>
#include <string>

#include "adapter/target_match.h"
#include "lora/adapter/adapter.h"

namespace lora {

class Selection {
 public:
  /// Keeps a reference to `config`.
  explicit Selection(const AdapterConfig& config);

  /// Only the modules of a base say what "all-linear" and PEFT's defaults mean.
  bool needs_base() const { return needs_base_; }

  /// Whether the configuration asks for factors at `module_path`; never where it needs a base.
  bool selects(const std::string& module_path) const;

  /// Why PEFT makes no LoRA layer for these factors: the field and what it says; empty where it
  /// makes one, or only a base can tell.
  std::string refusal(const LoraModule& module) const;
  /// The same for the path that PEFT matches.
  std::string refusal(const std::string& module_path) const;

 private:
  const AdapterConfig& config_;
  std::optional<TargetMatcher> matcher_;
  bool needs_base_ = false;
};

}  // namespace lora
