// The layers of a model as data: parameters from a checkpoint and the places for adapters.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "engine/adapter_binding.h"
#include "engine/lora_site.h"
#include "engine/parameter.h"

namespace lora::engine {

/// LayerNorm, or RMSNorm without a bias.
struct Norm {
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;
  double eps = 0;
  bool adds_one = false;  ///< an RMSNorm that multiplies by 1 + weight
};

/// An embedding table; ids equal to `padding` send no gradient to it.
struct Table {
  LoraSite* site = nullptr;
  std::optional<std::int64_t> padding;
};

class LayerStore {
 public:
  /// `prefix`: see ParameterSource. Parameters that the adapters of `options` bring along may be
  /// missing from the base.
  LayerStore(const ModelOptions& options, std::string prefix = {});
  LayerStore(const LayerStore&) = delete;
  LayerStore& operator=(const LayerStore&) = delete;

  LoraSite& linear(const std::string& path, std::int64_t in, std::int64_t out, bool has_bias);
  LoraSite& conv1d(const std::string& path, std::int64_t in, std::int64_t out);
  Table embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                  std::optional<std::int64_t> padding = std::nullopt);
  Norm layer_norm(const std::string& path, std::int64_t width, double eps);
  Norm rms_norm(const std::string& path, std::int64_t width, double eps);
  /// A parameter that no layer here reads but adapters may replace.
  void unused(const std::string& base_name, std::vector<std::int64_t> shape);

  Sites sites();
  ParameterSource& source() { return source_; }
  const ParameterSource& source() const { return source_; }

 private:
  LoraSite& site(const std::string& path, LayerKind kind, std::vector<std::int64_t> shape,
                 std::int64_t bias_size);

  ParameterSource source_;
  std::deque<LoraSite> sites_;  ///< a deque: references stay valid
};

}  // namespace lora::engine
