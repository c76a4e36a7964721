// config.json of a base model.
#include "fuzz.h"
#include "lora/checkpoint/model_config.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  fuzz::accepts([&] {
    const ModelConfig config =
        parse_model_config(parse_json(fuzz::text_of(data, size), "input"), "input");
    const bool runs = config.decoder || config.gpt2 || config.bert || config.gpt_neox || config.mlp;
    fuzz::require(runs == config.unsupported_reason.empty(),
                  "a model runs or the reason why not is given", config.unsupported_reason);
    if (config.bert)
      fuzz::require(config.bert->max_tokens > 0 &&
                        config.bert->max_tokens <= config.bert->max_position_embeddings,
                    "a sequence has a position for each token", config.model_type);
    if (config.gpt_neox)
      fuzz::require(
          config.gpt_neox->rotary_size * config.gpt_neox->num_heads <= config.gpt_neox->hidden_size,
          "what is rotated lies inside a head", config.model_type);
  });
  return 0;
}
