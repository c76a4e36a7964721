#include <utility>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/model_config.h"
#include "ops/fresh_parameters.h"
#include "ops/init_base_plan.h"
#include "ops/init_base_presets.h"

namespace lora {
namespace {

std::string mlp_config(const InitBaseOptions& options) {
  MlpConfig mlp;
  mlp.hidden_sizes = options.hidden_sizes;
  if (mlp.hidden_sizes.empty()) mlp.hidden_sizes = {10, 20, 2};
  if (mlp.hidden_sizes.size() < 2)
    throw Error(ErrorKind::usage, "cannot make an mlp of " +
                                      std::to_string(mlp.hidden_sizes.size()) +
                                      " size, expected at least an input and an output size");
  for (std::size_t i = 1; i < mlp.hidden_sizes.size(); ++i)
    mlp.layers.push_back("fc" + std::to_string(i));
  mlp.activation = options.activation.value_or("relu");
  mlp.final_activation = options.final_activation.value_or("none");
  return dump_json(Json(mlp_document(mlp, "float32"))) + "\n";
}

std::string read_text(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string config_of(const InitBaseOptions& options) {
  if (options.arch) return read_text(*options.arch);
  if (*options.preset == "mlp") return mlp_config(options);
  std::string text = preset_config(*options.preset);
  if (text.empty()) {
    std::string known;
    for (const std::string_view name : init_base_presets())
      known += (known.empty() ? "" : ", ") + std::string(name);
    throw Error(ErrorKind::usage,
                "unknown preset \"" + *options.preset + "\", expected one of " + known);
  }
  return text;
}

DType dtype_for(const InitBaseOptions& options, const ModelConfig& config,
                const std::string& context) {
  if (options.dtype) return *options.dtype;
  if (config.dtype.empty() || config.dtype == "auto") return DType::f32;
  if (const auto dtype = dtype_from_config_name(config.dtype)) return *dtype;
  throw Error(ErrorKind::unsupported, "cannot make weights for " + context + ": dtype \"" +
                                          config.dtype +
                                          "\" is not known, expected float32, bfloat16, float16 "
                                          "or float64")
      .in_file(context)
      .with_hint("choose one with --dtype");
}

}  // namespace

BasePlan plan_fresh(const InitBaseOptions& options) {
  const std::string context = options.arch ? options.arch->string() : "preset " + *options.preset;
  std::string text = config_of(options);
  const ModelConfig config = parse_model_config(parse_json(text, context), context);
  if (!config.quantization.empty())
    throw Error(ErrorKind::unsupported, "cannot make weights for " + context +
                                            ": it describes weights quantised with " +
                                            config.quantization)
        .in_file(context);
  const DType dtype = dtype_for(options, config, context);

  BasePlan plan;
  plan.model_type = config.model_type;
  if (config_dtype_name(dtype) != config.dtype)
    text = with_config_dtype(text, config_dtype_name(dtype));
  plan.config_text = std::move(text);
  for (FreshParameter& parameter : fresh_parameters(config, context)) {
    TensorSource source;
    source.name = parameter.name;
    source.dtype = dtype;
    source.shape = parameter.shape;
    source.load = [parameter = std::move(parameter), dtype, seed = options.seed,
                   threads = options.threads] {
      return fresh_tensor(parameter, dtype, seed, threads);
    };
    plan.tensors.push_back(std::move(source));
  }
  if (!config.unsupported_reason.empty())
    plan.notes.push_back(config.unsupported_reason +
                         ": train, load and generate cannot run this base in this release");
  return plan;
}

}  // namespace lora
