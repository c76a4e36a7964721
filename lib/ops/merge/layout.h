// The form of a merged checkpoint before any of its values is known.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/json.h"
#include "lora/format/safetensors.h"

namespace lora::merging {

struct OutputFile {
  std::string name;
  Metadata metadata;
  std::vector<std::string> tensors;  ///< as stored: second names of one tensor too
};

struct Layout {
  /// Names, aliases, dtypes and shapes of what is written; the bytes are the base's.
  Checkpoint form;
  std::vector<OutputFile> files;
  std::string index_name;  ///< empty: one file without an index
  JsonObject index_metadata;
  std::vector<std::string> untied;         ///< aliases of the base that become tensors
  std::optional<std::int64_t> vocabulary;  ///< rows of the embedding, where they change
  std::vector<std::string> notes;

  std::uint64_t bytes_of(const std::string& stored) const;
};

/// A head (or another second name) becomes a tensor of its own where the adapters make it differ
/// from what it is tied to.
Layout make_layout(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
                   std::optional<DType> dtype);

/// Second factors of one update (ensure_weight_tying) go away where embedding and head stay one
/// matrix, which gets the update once.
void drop_second_factors(Adapter& adapter, const Checkpoint& form);

}  // namespace lora::merging
