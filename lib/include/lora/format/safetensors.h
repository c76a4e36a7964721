// The safetensors container: strict zero-copy reading and byte-exact writing.
//
// Reading follows the reference reader (safetensors 0.8) and refuses more: duplicate tensor names
// and metadata keys, array-form entries, nesting beyond 128 levels, extents from 2^63 on. Writing
// reproduces the reference library's bytes for the same tensors with at most one metadata key (with
// more, the reference's own order is random; ours is sorted). See docs/formats.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/atomic_write.h"
#include "lora/base/mapped_file.h"
#include "lora/base/tensor.h"

namespace lora {

using Metadata = std::map<std::string, std::string>;

/// What PEFT and transformers write: {"format": "pt"}.
const Metadata& pytorch_metadata();

struct SafetensorsFile {
  std::filesystem::path path;
  bool has_metadata = false;  ///< `__metadata__` was present, possibly empty
  Metadata metadata;
  TensorMap tensors;                  ///< views into the mapping; each keeps it alive
  std::vector<std::string> in_order;  ///< tensor names in data order
  std::uint64_t header_bytes = 0;     ///< offset of the first tensor byte
};

/// Maps the file and checks every byte of its header. Throws Error(not_found | malformed) naming
/// the file and, where it is about one, the tensor.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

/// The same on bytes already at hand; `keep_alive` backs the tensors, `path` only names the source.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes,
                                  std::shared_ptr<const void> keep_alive,
                                  const std::filesystem::path& path);

/// A tensor to be written whose bytes are produced when its turn comes, so that a conversion of a
/// large checkpoint needs memory for one tensor only, or for a part of one (`stream`).
struct TensorSource {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::function<Tensor()> load;  ///< must return exactly this dtype and shape
  /// In place of `load`, where set: hands over the tensor's bytes front to back, all of them.
  std::function<void(const std::function<void(std::span<const std::byte>)>&)> stream = nullptr;
};

/// One source per tensor of the map, in name order.
std::vector<TensorSource> sources_of(const TensorMap& tensors);

/// Bytes of the file that write_safetensors would produce.
std::uint64_t safetensors_size(const std::vector<TensorSource>& tensors, const Metadata* metadata);

/// Writes header and data in the reference's order (dtype descending, then name), whatever the
/// order of `tensors`. `metadata` null writes no `__metadata__`.
void write_safetensors(WritableFile& file, std::vector<TensorSource> tensors,
                       const Metadata* metadata);

/// Convenience: atomic file from a map.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const Metadata* metadata, const WriteOptions& options);

}  // namespace lora
