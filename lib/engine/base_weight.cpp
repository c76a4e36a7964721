#include "engine/base_weight.h"

#include "engine/bridge.h"
#include "lora/base/error.h"

namespace lora::engine {

at::ScalarType matrix_type(DType stored, Compute compute) {
  const bool is_bf16 =
      compute == Compute::bf16 || (compute == Compute::base && stored == DType::bf16);
  return is_bf16 ? at::kBFloat16 : at::kFloat;
}

const Tensor& stored_weight(const Checkpoint& base, const std::string& module_path,
                            const std::string& purpose) {
  const std::string name = module_path + ".weight";
  const Tensor* weight = base.find(name);
  // Checkpoints of a bare model lack the first component of the names.
  if (weight == nullptr) weight = base.find(name.substr(name.find('.') + 1));
  if (weight == nullptr || weight->shape.size() != 2)
    throw Error(ErrorKind::incompatible,
                purpose + " on " + module_path + ": the base has no such matrix");
  return *weight;
}

at::Tensor base_weight(const Checkpoint& base, const std::string& module_path, Compute compute,
                       const std::string& purpose) {
  const Tensor& weight = stored_weight(base, module_path, purpose);
  return convert(weight, matrix_type(weight.dtype, compute));
}

}  // namespace lora::engine
