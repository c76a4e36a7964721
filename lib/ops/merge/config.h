// What stands beside the weights of a merged checkpoint.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ops/merge/layout.h"

namespace lora::merging {

struct SideFiles {
  std::optional<std::string> config;  ///< text of config.json
  std::vector<std::filesystem::path>
      carried;  ///< tokenizer, generation settings: copied as they are
};

/// The base's configuration with what the merge changes: dtype, the tie of embedding and head, the
/// size of the vocabulary, and the class and labels where an adapter brings the head of a
/// classifier. Where the vocabulary changes, the tokenizer beside an adapter wins over the base's.
/// Adds to `notes` what must be said.
SideFiles make_config(const Checkpoint& base, const std::vector<const Adapter*>& adapters,
                      const Layout& layout, std::optional<DType> dtype,
                      std::vector<std::string>& notes);

}  // namespace lora::merging
