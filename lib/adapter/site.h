// One LoRA site: from its tensors to a LoraModule of the right kind.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "adapter/parameter_sites.h"
#include "lora/adapter/adapter.h"

namespace lora {

/// A tensor of the file and its name there; null while the file has none.
struct SiteTensor {
  const Tensor* tensor = nullptr;
  std::string file_key;
};

struct SiteTensors {
  SiteTensor a, b, bias, magnitude, diagonal;
  bool is_embedding = false;
};

using ProblemSink =
    std::function<void(KeyProblem::Kind kind, const std::string& file_key, std::string message)>;

class SiteBuilder {
 public:
  /// `sites` are all sites with factors of lora_A and lora_B: nesting tells kinds apart.
  SiteBuilder(const AdapterConfig& config, const std::vector<std::string>& sites,
              ProblemSink report);

  /// The module of a site with both factors, or nullopt when they cannot be multiplied. Everything
  /// that does not fit is reported.
  std::optional<LoraModule> build(const std::string& path, const SiteTensors& tensors) const;

 private:
  /// BD-LoRA: blocks on the diagonal of each factor.
  struct Blocks {
    std::int64_t a = 1, b = 1;
  };

  bool has_site(const std::string& path) const;
  void choose_kind(LoraModule& module) const;
  bool is_laid_out_otherwise(const LoraModule& module, const SiteTensors& tensors) const;
  bool settle_rank(LoraModule& module, const SiteTensors& tensors) const;
  bool settle_experts(LoraModule& module, const std::string& key) const;
  Blocks blocks_of(const std::string& path) const;
  void take_extras(LoraModule& module, const SiteTensors& tensors) const;
  bool fits(const SiteTensor& vector, std::int64_t width, const char* meaning) const;

  const AdapterConfig& config_;
  PatternTable patterns_;
  std::vector<std::string> sites_;  ///< sorted
  std::map<std::string, ParameterName> parameters_;
  ProblemSink report_;
};

}  // namespace lora
