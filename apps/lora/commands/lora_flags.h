// The flags that make an AdapterConfig: short names, and PEFT's field names as hidden aliases.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/option_set.h"
#include "lora/adapter/config.h"

namespace lora::cli {

class LoraFlags {
 public:
  void add_to(OptionSet& options);

  /// The configuration these flags describe; targets stay unresolved. Throws Error(usage).
  AdapterConfig config() const;
  const std::string& init() const { return init_; }

 private:
  std::int64_t rank_ = 8;
  double alpha_ = 16;
  double dropout_ = 0;
  std::vector<std::string> target_modules_, exclude_modules_, modules_to_save_;
  std::vector<std::string> rank_pattern_, alpha_pattern_;
  std::optional<std::string> layers_, task_;
  std::string bias_ = "none";
  std::string init_ = "default";
  std::vector<std::string> tokens_;
  bool rslora_ = false, dora_ = false, lora_bias_ = false;
};

}  // namespace lora::cli
