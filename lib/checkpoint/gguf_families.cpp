#include "checkpoint/gguf_families.h"

#include <algorithm>

namespace lora {

GgufModel read_gguf_model(const GgufFile& file, const std::string& architecture) {
  if (architecture == "gpt2") return read_gguf_gpt2(file);
  if (architecture == "gptneox") return read_gguf_gpt_neox(file);
  const std::vector<std::string> decoders = gguf_decoder_names();
  if (std::find(decoders.begin(), decoders.end(), architecture) != decoders.end())
    return read_gguf_decoder(file, architecture);
  std::string expected = "gpt2, gptneox";
  for (const std::string& name : decoders) expected += ", " + name;
  throw gguf_fault(
      file, ErrorKind::unsupported,
      "its architecture is " + dump_json(architecture) + ", expected one of " + expected);
}

}  // namespace lora
