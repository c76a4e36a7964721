#include "engine/generic/layer_store.h"

#include <utility>

namespace lora::engine {

LayerStore::LayerStore(const ModelOptions& options, std::string prefix)
    : source_(options, std::move(prefix)) {
  source_.allow_missing();
}

LoraSite& LayerStore::site(const std::string& path, LayerKind kind, std::vector<std::int64_t> shape,
                           std::int64_t bias_size) {
  Parameter& weight =
      kind == LayerKind::embedding
          ? source_.add(path + ".weight", std::move(shape))
          : source_.add_matrix(path + ".weight", std::move(shape), kind == LayerKind::conv1d);
  Parameter* bias = bias_size > 0 ? &source_.add(path + ".bias", {bias_size}) : nullptr;
  return sites_.emplace_back(LoraSite{path, kind, &weight, bias, {}});
}

LoraSite& LayerStore::linear(const std::string& path, std::int64_t in, std::int64_t out,
                             bool has_bias) {
  return site(path, LayerKind::linear, {out, in}, has_bias ? out : 0);
}

LoraSite& LayerStore::conv1d(const std::string& path, std::int64_t in, std::int64_t out) {
  return site(path, LayerKind::conv1d, {in, out}, out);
}

Table LayerStore::embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                            std::optional<std::int64_t> padding) {
  // torch counts a negative index from the end.
  if (padding && *padding < 0) *padding += rows;
  if (padding && (*padding < 0 || *padding >= rows)) padding.reset();
  return {&site(path, LayerKind::embedding, {rows, width}, 0), padding};
}

Norm LayerStore::layer_norm(const std::string& path, std::int64_t width, double eps) {
  Parameter& weight = source_.add(path + ".weight", {width});
  return {&weight, &source_.add(path + ".bias", {width}), eps};
}

Norm LayerStore::rms_norm(const std::string& path, std::int64_t width, double eps) {
  return {&source_.add(path + ".weight", {width}), nullptr, eps};
}

void LayerStore::unused(const std::string& base_name, std::vector<std::int64_t> shape) {
  source_.add(base_name, std::move(shape));
}

Sites LayerStore::sites() {
  Sites result;
  result.parameters = &source_.parameters();
  for (LoraSite& site : sites_) result.layers.push_back(&site);
  return result;
}

}  // namespace lora::engine
