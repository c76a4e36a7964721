// torch.save files (.pth, .pt, .bin): state dicts only, nothing is ever executed.
//
// Reads the zip form (torch >= 1.6) and the legacy form with a restricted pickle machine: tensors,
// parameters, storages, OrderedDict, plain containers and scalars. Any other global is refused by
// name. Writes the zip form that `torch.load(weights_only=True)` reads.
//
// The file is mapped. Reading touches its directory, its pickle and the few bytes around each
// storage; contiguous tensors are views of the mapping. Payload checksums are not verified, which
// would read everything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/atomic_write.h"
#include "lora/base/tensor.h"
#include "lora/format/safetensors.h"

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
  /// Keys that were left out, "(a tuple)" and the like for keys that are not text or integers: what
  /// is not a tensor in the state dict ("model.step" where that is nested under `model`), and
  /// everything beside a nested state dict ("epoch", "optimizer").
  std::vector<std::string> ignored;
};

/// True when the first bytes are those of a zip archive or a pickle; false for everything else,
/// directories and missing files included.
bool looks_like_torch_file(const std::filesystem::path& path);

/// Finds the state dict under `model`, `state_dict`, `module` or `model_state_dict` (the first of
/// these that is a dict with a tensor in it), else at the top level.
///
/// Views are checked against their storage with overflow-safe arithmetic. A view with gaps or
/// repetitions (transposed, sliced, expanded) is copied; these copies and all else that
/// one file makes the reader allocate may take 40 MiB and once the size of the file, so that an
/// expanded view of a few bytes cannot ask for more memory than the file justifies.
///
/// Throws Error(not_found) for a missing file; Error(malformed) for broken archives and pickles,
/// archives whose directory contradicts the records, missing or misshapen storages, views outside
/// their storage, duplicate names; Error(unsupported) for foreign globals, compression, encryption,
/// big-endian data, TorchScript and tar archives, objects that are not state dicts, and dtypes
/// outside DType.
TorchFile read_torch_file(const std::filesystem::path& path);

/// Writes an OrderedDict of tensors in the given order; names that share one Tensor's bytes share
/// one storage. Payloads start at multiples of 64 bytes and the same tensors always give the same
/// file. Throws Error(unsupported) for F4, F6 and names that are not UTF-8, Error(output) from
/// `file`.
void write_torch_file(WritableFile& file,
                      const std::vector<std::pair<std::string, Tensor>>& state_dict);

/// The same with tensors loaded one at a time, or streamed where a source says so. A source whose
/// name is a key of `aliases` is not loaded: it shares the storage of the source that the value
/// names, which must have the same dtype and size and be no alias itself (Error(internal)
/// otherwise).
void write_torch_file(WritableFile& file, const std::vector<TensorSource>& tensors,
                      const std::map<std::string, std::string>& aliases = {});

}  // namespace lora
