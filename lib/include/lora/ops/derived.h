// What every verb that makes an adapter from others takes and reports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/atomic_write.h"
#include "lora/base/dtype.h"
#include "lora/base/sha256.h"

namespace lora {

/// How the result is written.
struct DerivedOptions {
  std::filesystem::path output;
  std::optional<DType> dtype;     ///< of all float tensors; default: as they come
  bool dry_run = false;           ///< everything but the writing
  bool keeps_base_record = true;  ///< what the source's manifest says of its base stays true
  WriteOptions write;
  int threads = 0;  ///< 0: all
};

struct DerivedReport {
  std::filesystem::path output;
  bool is_written = false;
  Adapter adapter;          ///< the result
  Digest digest;            ///< of the result, as its history names it
  std::uint64_t bytes = 0;  ///< of its tensors
  std::vector<std::string> notes;
};

}  // namespace lora
