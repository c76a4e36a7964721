// torch.save files (.pth, .pt, .bin): state dicts only, nothing is ever executed.
//
// Reads the zip form (torch >= 1.6) and the legacy form with a restricted pickle machine: tensors,
// parameters, storages, OrderedDict, plain containers and scalars. Any other global is refused by
// name. Writes the zip form that `torch.load(weights_only=True)` reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/atomic_write.h"
#include "lora/base/tensor.h"

namespace lora {

/// One tensor of a state dict. `tensor` is contiguous: a view of the file where the stored view is
/// contiguous, a copy otherwise. Entries with equal storage, offset, shape and strides are aliases.
struct TorchEntry {
  std::string name;
  Tensor tensor;
  std::uint64_t storage_id = 0;       ///< equal for tensors that share one storage
  std::uint64_t storage_offset = 0;   ///< in elements
  std::vector<std::int64_t> strides;  ///< in elements, as stored
};

struct TorchFile {
  std::filesystem::path path;
  bool is_legacy = false;           ///< pre-1.6 sequence of pickles
  std::string nested_under;         ///< "", or the key that held the state dict ("model", ...)
  std::vector<TorchEntry> entries;  ///< in file order
  std::vector<std::string> ignored; ///< names of entries that are not tensors ("epoch", ...)
};

/// True when the first bytes are those of a zip archive or a pickle.
bool looks_like_torch_file(const std::filesystem::path& path);

/// Finds the state dict at the top level or under `model`, `state_dict`, `module` (also
/// `model_state_dict`). Throws Error(not_found | malformed | unsupported).
TorchFile read_torch_file(const std::filesystem::path& path);

/// Writes an OrderedDict of tensors; names that share one Tensor's bytes share one storage.
void write_torch_file(WritableFile& file,
                      const std::vector<std::pair<std::string, Tensor>>& state_dict);

}  // namespace lora
