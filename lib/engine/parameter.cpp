#include "engine/parameter.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base_weight.h"
#include "engine/bridge.h"
#include "engine/quantised_base.h"
#include "lora/adapter/adapter.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora::engine {

ParameterSource::ParameterSource(const ModelOptions& options, std::string prefix)
    : checkpoint_(*options.base),
      compute_(options.compute),
      base_dtype_(options.base_dtype),
      prefix_(std::move(prefix)) {
  for (const Adapter* adapter : options.adapters)
    for (const auto& [base_name, tensor] : adapter->replacements) from_adapters_.insert(base_name);
}

void ParameterSource::fill_missing() {
  for (Parameter& parameter : parameters_)
    if (!parameter.base.defined() && !parameter.quantised)
      parameter.base = parameter.replacement.detach().clone();
}

const Tensor* ParameterSource::find(const std::string& base_name, Parameter& parameter) const {
  std::vector<std::string> names{base_name};
  if (!prefix_.empty() && base_name.starts_with(prefix_))
    names.push_back(base_name.substr(prefix_.size()));
  // The first BERT checkpoints call weight and bias of a norm gamma and beta.
  for (std::size_t i = 0, count = names.size(); i < count; ++i)
    for (const auto& [name, old] : {std::pair{"LayerNorm.weight", "LayerNorm.gamma"},
                                    std::pair{"LayerNorm.bias", "LayerNorm.beta"}})
      if (names[i].ends_with(name))
        names.push_back(names[i].substr(0, names[i].size() - std::strlen(name)) + old);
  for (const std::string& name : names) {
    const Tensor* tensor = checkpoint_.find(name);
    if (tensor == nullptr) continue;
    const auto alias = checkpoint_.aliases.find(name);
    parameter.is_alias = alias != checkpoint_.aliases.end();
    parameter.stored_name = parameter.is_alias ? alias->second : name;
    return tensor;
  }
  return nullptr;
}

Parameter& ParameterSource::add(const std::string& base_name, std::vector<std::int64_t> shape) {
  return add(base_name, std::move(shape), false, false);
}

Parameter& ParameterSource::add_matrix(const std::string& base_name,
                                       std::vector<std::int64_t> shape, bool is_transposed) {
  const bool is_quantised = base_dtype_ != BaseDtype::native && is_layer_matrix(base_name) &&
                            !from_adapters_.contains(base_name);
  return add(base_name, std::move(shape), is_quantised, is_transposed);
}

Parameter& ParameterSource::add(const std::string& base_name, std::vector<std::int64_t> shape,
                                bool is_quantised, bool is_transposed) {
  Parameter& parameter = parameters_.emplace_back();
  parameter.base_name = base_name;
  parameter.shape = std::move(shape);
  const Tensor* tensor = find(base_name, parameter);
  if (tensor == nullptr) {
    if (is_missing_allowed_ && from_adapters_.contains(base_name)) return parameter;
    offenders_.push_back(base_name + " is missing, expected " + shape_to_string(parameter.shape));
  } else if (tensor->shape != parameter.shape) {
    offenders_.push_back(base_name + " has shape " + shape_to_string(tensor->shape) +
                         ", expected " + shape_to_string(parameter.shape));
  } else if (!is_float(tensor->dtype)) {
    offenders_.push_back(base_name + " has dtype " + std::string(to_string(tensor->dtype)) +
                         ", expected F32, BF16, F16 or F64");
  } else {
    parameter.stored_dtype = tensor->dtype;
    if (is_quantised)
      parameter.quantised.emplace(checkpoint_, base_name, *tensor, base_dtype_, is_transposed);
    else
      parameter.base = load(*tensor, parameter.shape.size() > 1);
  }
  return parameter;
}

at::Tensor ParameterSource::load(const Tensor& tensor, bool is_matrix) {
  const at::ScalarType type = matrix_type(tensor.dtype, compute_);
  if (!is_matrix) return convert(tensor, type).to(at::kFloat);
  at::Tensor& loaded = loaded_[tensor.bytes.data()];
  if (loaded.defined()) return loaded;
  loaded = convert(tensor, type);
  // What was converted needs its file no more.
  if (loaded.const_data_ptr() != static_cast<const void*>(tensor.bytes.data()))
    drop_pages(checkpoint_.mappings, tensor.bytes);
  return loaded;
}

void ParameterSource::throw_if_incomplete() const {
  if (offenders_.empty()) return;
  throw Error(ErrorKind::malformed,
              "loading the base model " + checkpoint_.path.string() + ": " +
                  std::to_string(offenders_.size()) +
                  " parameters do not match its configuration: " + join_offenders(offenders_))
      .in_file(checkpoint_.path.string());
}

std::string join_offenders(const std::vector<std::string>& offenders) {
  constexpr std::size_t kShown = 20;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, offenders.size()); ++i) {
    if (i > 0) text += "; ";
    text += offenders[i];
  }
  if (offenders.size() > kShown)
    text += " and " + std::to_string(offenders.size() - kShown) + " more";
  return text;
}

}  // namespace lora::engine
