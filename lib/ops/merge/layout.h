// The form of a merged checkpoint before any of its values is known.
#pragma once

#include <map>
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
  bool is_torch = false;             ///< a torch.save file; else safetensors
  /// In a torch file, names that share the storage of another name there.
  std::map<std::string, std::string> shared;
};

struct Layout {
  /// Names, aliases, dtypes and shapes of what is written; the bytes are the base's.
  Checkpoint form;
  std::vector<OutputFile> files;
  std::string index_name;  ///< empty: one file without an index
  JsonObject index_metadata;
  std::vector<std::string> added;          ///< names that the base does not have
  std::vector<std::string> untied;         ///< aliases of the base that become tensors
  bool is_tied_again = false;              ///< config.json does not say yet that the head is tied
  std::optional<std::int64_t> vocabulary;  ///< rows of the embedding, where they change
  std::optional<std::int64_t> labels;      ///< rows of a classifier's head, where they change
  std::vector<std::string> notes;

  std::uint64_t bytes_of(const std::string& stored) const;
};

/// A head (or another second name) becomes a tensor of its own where the adapters make it differ
/// from what it is tied to. The files are those of the base, in its container unless
/// `as_safetensors`.
Layout make_layout(const std::vector<const Adapter*>& adapters, const Checkpoint& base,
                   std::optional<DType> dtype, bool as_safetensors);

/// Takes aliases that are in the base's files out of what is written; config.json ties them.
void tie_again(const std::map<std::string, std::string>& tied, Layout& layout);

/// Second factors of one update (ensure_weight_tying) go away where embedding and head stay one
/// matrix, which gets the update once.
void drop_second_factors(Adapter& adapter, const Checkpoint& form);

}  // namespace lora::merging
