// config.json of a base model.
#include "fuzz.h"
#include "lora/checkpoint/model_config.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  fuzz::accepts([&] {
    const ModelConfig config =
        parse_model_config(parse_json(fuzz::text_of(data, size), "input"), "input");
    const bool runs = config.decoder || config.gpt2 || config.bert || config.mlp;
    fuzz::require(runs == config.unsupported_reason.empty(),
                  "a model runs or the reason why not is given", config.unsupported_reason);
  });
  return 0;
}
