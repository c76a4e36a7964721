#include "engine/parameter.h"

#include <algorithm>

#include "engine/bridge.h"
#include "lora/base/error.h"

namespace lora::engine {

ParameterSource::ParameterSource(const Checkpoint& checkpoint, Compute compute)
    : checkpoint_(checkpoint), compute_(compute) {}

Parameter& ParameterSource::add(const std::string& base_name, std::vector<std::int64_t> shape) {
  Parameter& parameter = parameters_.emplace_back();
  parameter.base_name = base_name;
  parameter.shape = std::move(shape);
  const Tensor* tensor = checkpoint_.find(base_name);
  if (tensor == nullptr) {
    offenders_.push_back(base_name + " is missing, expected " + shape_to_string(parameter.shape));
  } else if (tensor->shape != parameter.shape) {
    offenders_.push_back(base_name + " has shape " + shape_to_string(tensor->shape) +
                         ", expected " + shape_to_string(parameter.shape));
  } else if (!is_float(tensor->dtype)) {
    offenders_.push_back(base_name + " has dtype " + std::string(to_string(tensor->dtype)) +
                         ", expected F32, BF16, F16 or F64");
  } else {
    parameter.stored_dtype = tensor->dtype;
    parameter.is_alias = checkpoint_.aliases.contains(base_name);
    parameter.base = load(*tensor, parameter.shape.size() > 1);
  }
  return parameter;
}

at::Tensor ParameterSource::load(const Tensor& tensor, bool is_matrix) {
  const bool is_bf16 =
      compute_ == Compute::bf16 || (compute_ == Compute::base && tensor.dtype == DType::bf16);
  const at::ScalarType type = is_bf16 ? at::kBFloat16 : at::kFloat;
  if (!is_matrix) return convert(tensor, type).to(at::kFloat);
  at::Tensor& loaded = loaded_[tensor.bytes.data()];
  if (!loaded.defined()) loaded = convert(tensor, type);
  return loaded;
}

void ParameterSource::throw_if_incomplete() const {
  if (offenders_.empty()) return;
  throw Error(ErrorKind::malformed,
              "loading the base model: " + std::to_string(offenders_.size()) +
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
