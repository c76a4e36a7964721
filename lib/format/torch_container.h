// The two containers of torch.save: a zip archive, and the sequence of pickles before torch 1.6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/allocation_budget.h"
#include "format/pickle.h"

namespace lora {

struct StorageBytes {
  std::uint64_t id = 0;  ///< equal for equal keys, in the order of first use
  std::span<const std::byte> bytes;
};

/// The saved object and the bytes of every storage it mentions.
struct TorchContents {
  pickle::Document document;
  std::vector<StorageBytes> storages;  ///< one for each of document.storages
};

/// Both read `file`, which must outlive the contents, without touching the storages' bytes, and
/// check that every storage mentioned is there with exactly the size it claims. They throw
/// Error(malformed | unsupported) with a message that does not name the file. What they allocate is
/// paid from `budget`.
TorchContents read_zip_container(std::span<const std::byte> file, AllocationBudget& budget);
TorchContents read_legacy_container(std::span<const std::byte> file, AllocationBudget& budget);

}  // namespace lora
