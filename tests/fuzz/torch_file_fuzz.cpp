// torch.save files, zip and legacy. Every byte of every tensor is read, so that a sanitizer sees a
// view that leaves its storage; what is accepted can be written and read again.
#include "fuzz.h"
#include "lora/format/torch_file.h"

namespace {

using namespace lora;

class DiskFile final : public WritableFile {
 public:
  void write(std::span<const std::byte> bytes) override {
    content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void sync_and_close() override {}
  std::string content;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::InputFolder folder;
  const auto path = folder.put("input.pt", fuzz::text_of(data, size));
  TorchFile file;
  if (!fuzz::accepts([&] { file = read_torch_file(path); })) return 0;
  std::vector<std::pair<std::string, Tensor>> state_dict;
  for (const TorchEntry& entry : file.entries) {
    fuzz::require(entry.tensor.bytes.size() * 8 ==
                      static_cast<std::size_t>(entry.tensor.numel()) * bits_of(entry.tensor.dtype),
                  "a tensor has the bytes of its shape", entry.name);
    state_dict.emplace_back(entry.name, entry.tensor);
  }
  DiskFile out;
  if (!fuzz::accepts([&] { write_torch_file(out, state_dict); })) return 0;
  const TorchFile again = read_torch_file(folder.put("output.pt", out.content));
  fuzz::require(again.entries.size() == file.entries.size(), "tensors survive writing");
  for (std::size_t i = 0; i < file.entries.size(); ++i) {
    const Tensor& before = file.entries[i].tensor;
    const Tensor& after = again.entries[i].tensor;
    fuzz::require(again.entries[i].name == file.entries[i].name && before.dtype == after.dtype &&
                      before.shape == after.shape &&
                      std::equal(before.bytes.begin(), before.bytes.end(), after.bytes.begin(),
                                 after.bytes.end()),
                  "a tensor survives writing", file.entries[i].name);
  }
  return 0;
}
