#include "checkpoint/module_tree.h"

#include <utility>

#include "lora/checkpoint/model_config.h"

namespace lora {

ModuleTree::ModuleTree(std::string family, double eps)
    : family_(std::move(family)), eps_(dump_json(Json(eps))) {}

ModuleInfo& ModuleTree::module(const std::string& path, const std::string& class_name,
                               std::string arguments) {
  ModuleInfo& info = modules_.emplace_back();
  info.module_path = path;
  info.class_name = class_name;
  info.arguments = std::move(arguments);
  return info;
}

void ModuleTree::own(const std::string& path, const std::string& class_suffix) {
  module(path, family_ + class_suffix);
}

ModuleInfo& ModuleTree::linear(const std::string& path, std::int64_t in, std::int64_t out,
                               bool has_bias) {
  ModuleInfo& info =
      module(path, "Linear",
             "in_features=" + std::to_string(in) + ", out_features=" + std::to_string(out) +
                 ", bias=" + (has_bias ? "True" : "False"));
  info.kind = LayerKind::linear;
  info.in_features = in;
  info.out_features = out;
  info.weight_shape = {out, in};
  info.has_bias = has_bias;
  return info;
}

void ModuleTree::conv1d(const std::string& path, std::int64_t in, std::int64_t out) {
  ModuleInfo& info =
      module(path, "Conv1D", "nf=" + std::to_string(out) + ", nx=" + std::to_string(in));
  info.kind = LayerKind::conv1d;
  info.in_features = in;
  info.out_features = out;
  info.weight_shape = {in, out};
  info.has_bias = true;
}

ModuleInfo& ModuleTree::norm(const std::string& path, const std::string& class_name,
                             std::int64_t width) {
  ModuleInfo& info = module(path, class_name, "(" + std::to_string(width) + ",), eps=" + eps_);
  info.kind = LayerKind::norm;
  info.out_features = width;
  info.weight_shape = {width};
  return info;
}

void ModuleTree::rms_norm(const std::string& path, std::int64_t width) {
  norm(path, family_ + "RMSNorm", width);
}

void ModuleTree::layer_norm(const std::string& path, std::int64_t width) {
  ModuleInfo& info = norm(path, "LayerNorm", width);
  info.has_bias = true;
  info.arguments += ", elementwise_affine=True, bias=True";
}

ModuleInfo& ModuleTree::embedding(const std::string& path, std::int64_t rows, std::int64_t width,
                                  std::optional<std::int64_t> padding) {
  ModuleInfo& info = module(path, "Embedding", std::to_string(rows) + ", " + std::to_string(width));
  info.kind = LayerKind::embedding;
  info.in_features = rows;
  info.out_features = width;
  info.weight_shape = {rows, width};
  // torch counts a negative padding index from the end.
  if (padding)
    info.arguments += ", padding_idx=" + std::to_string(*padding < 0 ? *padding + rows : *padding);
  return info;
}

void ModuleTree::dropout(const std::string& path, const Json& config, const char* key,
                         double fallback) {
  const Json* rate = config.find(key);
  const bool is_given = rate != nullptr && !rate->is_null();
  module(path, "Dropout", "p=" + dump_json(is_given ? *rate : Json(fallback)) + ", inplace=False");
}

void ModuleTree::activation(const std::string& path, const std::string& name) {
  module(path, std::string(activation_class(name)),
         name == "leaky_relu" ? "negative_slope=0.01" : "");
}

}  // namespace lora
