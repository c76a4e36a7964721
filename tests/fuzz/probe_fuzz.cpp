// probe.safetensors: inputs and outputs fit together.
#include "fuzz.h"
#include "lora/adapter/probe.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put(kProbeName, fuzz::text_of(data, size));
  fuzz::accepts([&] {
    const Probe probe = read_probe(path);
    fuzz::require(!probe.inputs.empty(), "a probe has inputs");
  });
  return 0;
}
