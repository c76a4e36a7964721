#include <memory>
#include <utility>

#include "checkpoint/gguf_base.h"
#include "lora/base/error.h"
#include "lora/checkpoint/model_config.h"
#include "ops/init_base_plan.h"

namespace lora {

BasePlan plan_gguf(const InitBaseOptions& options) {
  if (options.activation || options.final_activation)
    throw Error(ErrorKind::usage,
                "an activation can be set for an mlp only, " + *options.from + " is a GGUF model");
  auto base = std::make_shared<GgufBase>(open_gguf_base(*options.from));
  const DType dtype = options.dtype.value_or(base->dtype);
  BasePlan plan;
  base->config["dtype"] = config_dtype_name(dtype);
  plan.model_type = base->model_type;
  plan.config_text = dump_json(base->config) + "\n";
  plan.texts = std::move(base->tokenizer);
  plan.notes = base->notes;
  for (const GgufWeight& weight : base->weights)
    plan.tensors.push_back(
        {weight.name, dtype, weight.shape, [base, &weight, dtype, threads = options.threads] {
           return load_gguf_weight(weight, dtype, threads);
         }});
  return plan;
}

}  // namespace lora
