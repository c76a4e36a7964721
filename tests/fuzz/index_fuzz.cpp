// model.safetensors.index.json: no file name leaves the folder, no tensor is without a file.
#include <algorithm>

#include "fuzz.h"
#include "lora/format/sharded.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put("model.safetensors.index.json", fuzz::text_of(data, size));
  ShardIndex index;
  if (!fuzz::accepts([&] { index = read_shard_index(path); })) return 0;
  fuzz::require(!index.file_of.empty(), "an index names tensors");
  for (const auto& [tensor, file] : index.file_of) {
    fuzz::require(std::binary_search(index.files.begin(), index.files.end(), file),
                  "the file of a tensor is listed", tensor);
    fuzz::require((folder.path() / file).parent_path() == folder.path() && file != "..",
                  "a shard lies beside its index", file);
  }
  return 0;
}
