// adapter_config.json: what is accepted is written in a form that is accepted and means the same.
#include "fuzz.h"
#include "lora/adapter/config.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  AdapterConfig config;
  if (!fuzz::accepts([&] {
        config = parse_adapter_config(parse_json(fuzz::text_of(data, size), "input"), "input");
      }))
    return 0;
  const std::string text = dump_adapter_config(config);
  const AdapterConfig again = parse_adapter_config(parse_json(text, "output"), "output");
  fuzz::require(dump_adapter_config(again) == text, "a configuration survives writing", text);
  fuzz::accepts([&] {
    const PatternTable table(config);
    for (const char* path : {"model.layers.0.self_attn.q_proj", "fc1", ""}) {
      const std::int64_t rank = table.rank_of(path);
      fuzz::require(rank >= 1, "a rank is positive");
      table.scaling_of(path, rank);
    }
    table.dead_keys({"model.layers.0.self_attn.q_proj", "fc1"});
  });
  return 0;
}
