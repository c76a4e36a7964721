// GGUF: what is accepted lies inside the file, and every block can be widened.
#include "fuzz.h"
#include "lora/format/gguf.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put("m.gguf", fuzz::text_of(data, size));
  fuzz::accepts([&] {
    const GgufFile file = read_gguf(path);
    const auto all = file.mapping->bytes();
    for (const GgufTensor& tensor : file.tensors) {
      fuzz::require(tensor.bytes.empty() ||
                        (tensor.bytes.data() >= all.data() &&
                         tensor.bytes.data() + tensor.bytes.size() <= all.data() + all.size()),
                    "a tensor lies inside its file", tensor.name);
      if (tensor.format->storage) continue;
      std::vector<float> values(tensor.bytes.size() / tensor.format->bytes * tensor.format->values);
      dequantise(*tensor.format, tensor.bytes, values);
    }
    for (const auto& [key, value] : file.metadata)
      if (const auto* array = std::get_if<GgufArray>(&value)) {
        std::uint64_t items = 0;
        if (array->holds_texts()) array->each_text([&](std::string_view) { ++items; });
        if (array->holds_integers()) array->each_integer([&](std::int64_t) { ++items; });
        fuzz::require(items == 0 || items == array->size(),
                      "an array has as many items as it says");
      }
  });
  return 0;
}
