#include "checkpoint/module_list.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "checkpoint/module_names.h"
#include "checkpoint/natural_order.h"

namespace lora {
namespace {

struct NaturalLess {
  bool operator()(const std::string& a, const std::string& b) const { return natural_less(a, b); }
};
// Parameters of each module path, by their last name; parents of parameters have none.
using Modules = std::map<std::string, std::map<std::string, const Tensor*>, NaturalLess>;

std::string parent_of(const std::string& path) {
  const auto dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

Modules collect(const Checkpoint& checkpoint) {
  Modules modules;
  const auto add = [&](const std::string& base_name) {
    const auto [path, parameter] = split_parameter(base_name);
    modules[path][parameter] = checkpoint.find(base_name);
    for (std::string parent = path; !parent.empty();) {
      parent = parent_of(parent);
      modules[parent];
    }
  };
  for (const auto& [name, tensor] : checkpoint.tensors) add(name);
  for (const auto& [alias, canonical] : checkpoint.aliases) add(alias);
  modules[""];
  return modules;
}

bool is_number(std::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Containers whose children are all numbered.
std::set<std::string> numbered_containers(const Modules& modules) {
  std::set<std::string> numbered;
  std::set<std::string> named;
  for (const auto& [path, parameters] : modules) {
    if (path.empty()) continue;
    const std::string parent = parent_of(path);
    const auto first = parent.empty() ? 0 : parent.size() + 1;
    (is_number(std::string_view(path).substr(first)) ? numbered : named).insert(parent);
  }
  for (const std::string& path : named) numbered.erase(path);
  return numbered;
}

bool is_conv1d(const std::string& path, const std::string& model_type) {
  if (model_type != "gpt2" && model_type != "gpt-sw3" && model_type != "openai-gpt") return false;
  const auto dot = path.rfind('.');
  const std::string name = dot == std::string::npos ? path : path.substr(dot + 1);
  return name == "c_attn" || name == "c_proj" || name == "c_fc" || name == "q_attn";
}

void describe_matrix(ModuleInfo& info, const Tensor& weight, const std::string& model_type) {
  const std::int64_t rows = weight.shape[0];
  const std::int64_t columns = weight.shape[1];
  if (is_conv1d(info.module_path, model_type)) {
    info.class_name = "Conv1D";
    info.kind = LayerKind::conv1d;
    info.in_features = rows;
    info.out_features = columns;
    info.arguments = "nf=" + std::to_string(columns) + ", nx=" + std::to_string(rows);
  } else if (is_embedding_name(info.module_path)) {
    info.class_name = "Embedding";
    info.kind = LayerKind::embedding;
    info.in_features = rows;
    info.out_features = columns;
    info.arguments = std::to_string(rows) + ", " + std::to_string(columns);
  } else {
    info.class_name = "Linear";
    info.kind = LayerKind::linear;
    info.in_features = columns;
    info.out_features = rows;
    info.arguments = "in_features=" + std::to_string(columns) +
                     ", out_features=" + std::to_string(rows) +
                     ", bias=" + (info.has_bias ? "True" : "False");
    info.is_output_head = is_output_head_name(info.module_path);
  }
}

void describe_convolution(ModuleInfo& info, const Tensor& weight) {
  const std::string dimensions = std::to_string(weight.shape.size() - 2);
  info.class_name = "Conv" + dimensions + "d";
  info.kind = LayerKind::convolution;
  info.out_features = weight.shape[0];
  info.in_features = weight.shape[1];
}

void describe_attention(ModuleInfo& info, const Tensor& in_projection) {
  info.class_name = "MultiheadAttention";
  info.kind = LayerKind::attention;
  info.weight_shape = in_projection.shape;
  info.out_features = in_projection.shape[0];
  info.in_features = in_projection.shape[1];
}

// Matrices and stacks of matrices that are no module's weight: what target_parameters may name. The
// order of the class is not known; transformers registers the projection back last.
std::vector<ModuleInfo> bare_parameters(const std::string& path,
                                        const std::map<std::string, const Tensor*>& parameters) {
  std::vector<ModuleInfo> list;
  for (const auto& [name, tensor] : parameters) {
    const std::size_t dimensions = tensor->shape.size();
    if (name == "weight" || name == "in_proj_weight" || dimensions < 2 || dimensions > 3) continue;
    ModuleInfo info;
    info.module_path = path.empty() ? name : path + "." + name;
    info.class_name = "Parameter";
    info.kind = LayerKind::parameter;
    info.weight_shape = tensor->shape;
    list.push_back(std::move(info));
  }
  std::stable_partition(list.begin(), list.end(), [](const ModuleInfo& info) {
    return info.module_path.find("down_proj") == std::string::npos;
  });
  return list;
}

void describe(ModuleInfo& info, const std::map<std::string, const Tensor*>& parameters,
              const std::string& model_type) {
  const auto weight = parameters.find("weight");
  info.has_bias = parameters.contains("bias");
  const auto in_projection = parameters.find("in_proj_weight");
  if (in_projection != parameters.end() && in_projection->second->shape.size() == 2)
    describe_attention(info, *in_projection->second);
  if (weight == parameters.end()) return;
  const Tensor& tensor = *weight->second;
  info.weight_shape = tensor.shape;
  if (tensor.shape.size() == 2) {
    describe_matrix(info, tensor, model_type);
  } else if (tensor.shape.size() >= 3 && tensor.shape.size() <= 5) {
    describe_convolution(info, tensor);
  } else if (tensor.shape.size() == 1 && is_norm_name(info.module_path)) {
    info.class_name = info.has_bias ? "LayerNorm" : "RMSNorm";
    info.kind = LayerKind::norm;
    info.out_features = tensor.shape[0];
    info.arguments = "(" + std::to_string(tensor.shape[0]) + ",)";
  }
}

std::string root_class(const std::optional<ModelConfig>& config) {
  if (!config) return "Module";
  if (config->mlp) return "MLP";
  return config->architecture.empty() ? "Module" : config->architecture;
}

}  // namespace

ModuleList deduced_modules(const Checkpoint& checkpoint) {
  const Modules modules = collect(checkpoint);
  const std::set<std::string> numbered = numbered_containers(modules);
  const bool is_mlp = checkpoint.config && checkpoint.config->mlp;
  ModuleList list;
  for (const auto& [path, parameters] : modules) {
    ModuleInfo info;
    info.module_path = path;
    info.class_name = "Module";
    if (numbered.contains(path)) info.class_name = is_mlp ? "Sequential" : "ModuleList";
    if (path.empty()) info.class_name = root_class(checkpoint.config);
    describe(info, parameters, checkpoint.config ? checkpoint.config->model_type : "");
    list.push_back(std::move(info));
    for (ModuleInfo& parameter : bare_parameters(path, parameters))
      list.push_back(std::move(parameter));
  }
  return list;
}

ModuleList list_modules(const Checkpoint& checkpoint) {
  if (checkpoint.config && checkpoint.config->layout) return decoder_modules(*checkpoint.config);
  if (checkpoint.config && checkpoint.config->gpt2) return gpt2_modules(*checkpoint.config);
  if (checkpoint.config && checkpoint.config->gpt_neox) return gpt_neox_modules(*checkpoint.config);
  if (checkpoint.config && checkpoint.config->bert)
    return checkpoint.config->model_type == "distilbert" ? distilbert_modules(*checkpoint.config)
                                                         : bert_modules(*checkpoint.config);
  return deduced_modules(checkpoint);
}

}  // namespace lora
