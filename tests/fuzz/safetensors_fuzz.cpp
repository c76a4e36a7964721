// The header of a safetensors file. What is accepted lies inside the file, and survives being
// written and read again.
#include "fuzz.h"
#include "lora/format/safetensors.h"

namespace {

using namespace lora;

class MemoryFile final : public WritableFile {
 public:
  void write(std::span<const std::byte> bytes) override {
    content.insert(content.end(), bytes.begin(), bytes.end());
  }
  void sync_and_close() override {}
  std::vector<std::byte> content;
};

void require_inside(const SafetensorsFile& file, std::span<const std::byte> bytes) {
  for (const auto& [name, tensor] : file.tensors) {
    const bool inside = tensor.bytes.data() >= bytes.data() &&
                        tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size();
    fuzz::require(inside || tensor.bytes.empty(), "a tensor lies inside its file", name);
    fuzz::require(
        tensor.bytes.size() * 8 == static_cast<std::size_t>(tensor.numel()) * bits_of(tensor.dtype),
        "a tensor has the bytes of its shape", name);
  }
  fuzz::require(file.in_order.size() == file.tensors.size(), "every tensor has a place");
}

void require_same(const SafetensorsFile& a, const SafetensorsFile& b) {
  fuzz::require(a.metadata == b.metadata && a.has_metadata == b.has_metadata,
                "metadata survives writing");
  fuzz::require(a.tensors.size() == b.tensors.size(), "tensors survive writing");
  for (const auto& [name, tensor] : a.tensors) {
    const auto other = b.tensors.find(name);
    fuzz::require(other != b.tensors.end() && other->second.dtype == tensor.dtype &&
                      other->second.shape == tensor.shape &&
                      std::equal(tensor.bytes.begin(), tensor.bytes.end(),
                                 other->second.bytes.begin(), other->second.bytes.end()),
                  "a tensor survives writing", name);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  SafetensorsFile file;
  if (!fuzz::accepts([&] { file = parse_safetensors(bytes, nullptr, "input"); })) return 0;
  require_inside(file, bytes);
  MemoryFile out;
  write_safetensors(out, sources_of(file.tensors), file.has_metadata ? &file.metadata : nullptr);
  require_same(file, parse_safetensors(out.content, nullptr, "output"));
  return 0;
}
