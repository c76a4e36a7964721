// Building the module tree of a family, with what print(model) shows of each module.
#pragma once

#include <optional>
#include <string>

#include "lora/base/module.h"
#include "lora/format/json.h"

namespace lora {

class ModuleTree {
 public:
  /// `family` starts the names of the model's own classes ("Llama"); `eps` is that of its norms.
  ModuleTree(std::string family, double eps);

  ModuleInfo& module(const std::string& path, const std::string& class_name,
                     std::string arguments = {});
  /// A class of the family itself: own("model", "Model") is LlamaModel.
  void own(const std::string& path, const std::string& class_suffix);
  ModuleInfo& linear(const std::string& path, std::int64_t in, std::int64_t out, bool has_bias);
  /// GPT-2's layer with a bias and the weight [in, out].
  void conv1d(const std::string& path, std::int64_t in, std::int64_t out);
  void rms_norm(const std::string& path, std::int64_t width);
  void layer_norm(const std::string& path, std::int64_t width);
  ModuleInfo& embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                        std::optional<std::int64_t> padding = std::nullopt);
  /// The rate as config.json spells it ("p=0" and "p=0.0" differ), else `fallback`.
  void dropout(const std::string& path, const Json& config, const char* key, double fallback);
  void activation(const std::string& path, const std::string& name);
  ModuleList take() { return std::move(modules_); }

 private:
  ModuleInfo& norm(const std::string& path, const std::string& class_name, std::int64_t width);

  std::string family_;
  std::string eps_;
  ModuleList modules_;
};

}  // namespace lora
