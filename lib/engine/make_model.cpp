#include "engine/generic/generic_model.h"
#include "engine/grown_base.h"
#include "engine/llama/llama_model.h"
#include "engine/mlp/mlp_model.h"
#include "engine/model.h"
#include "engine/quantised_base.h"
#include "lora/adapter/adapter.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

std::unique_ptr<Model> make_model(const ModelOptions& given) {
  if (given.base == nullptr) throw Error(ErrorKind::usage, "loading a model without a base");
  const ModelOptions options = with_rows_for_tokens(given);
  const std::string file = options.base->path.string();
  if (options.device != "cpu")
    throw Error(ErrorKind::unsupported,
                "loading a model on device \"" + options.device + "\", expected \"cpu\"");
  if (!options.base->config)
    throw Error(ErrorKind::unsupported,
                "loading a model: the base " + file +
                    " has no config.json and is no plain chain of linear layers")
        .in_file(file);
  check_quantisable(*options.base, options.base_dtype);
  for (const Adapter* adapter : options.adapters)
    refuse_changed_base(adapter->config, options.base_dtype);
  const ModelConfig& config = *options.base->config;
  if (config.mlp) return make_mlp(options);
  if (config.decoder && has_fast_step(*config.decoder) && !needs_generic(options))
    return make_llama(options);
  if (config.decoder) return make_generic(options, make_decoder_network(options));
  if (config.gpt2) return make_generic(options, make_gpt2_network(options));
  if (config.gpt_neox) return make_generic(options, make_gpt_neox_network(options));
  if (config.bert) return make_generic(options, make_bert_network(options));
  throw Error(ErrorKind::unsupported, "loading a model: the engine cannot run " + file +
                                          " (model_type \"" + config.model_type +
                                          "\"): " + config.unsupported_reason)
      .in_file(file);
}

}  // namespace lora::engine
