// The history of an adapter that was made from others: operations, parameters, digests. No times
// and no paths, so that the same work gives the same bytes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/manifest.h"
#include "lora/base/sha256.h"
#include "lora/format/json.h"

namespace lora {

struct LineageInput {
  static constexpr const char* kAdapter = "adapter";

  Digest digest;      ///< adapter_digest, or the root of a base
  JsonArray history;  ///< of the input's own manifest; empty when it has none
  double weight = 1;  ///< recorded where it is not 1
  /// Member that names the digest: "adapter", or the part that another input plays ("base",
  /// "initial").
  std::string kind = kAdapter;
};

struct Operation {
  std::string name;       ///< of the verb
  JsonObject parameters;  ///< as asked, defaults that matter included
  std::vector<LineageInput> inputs;
};

/// The digest of an adapter and the history that its manifest holds.
LineageInput lineage_of(const Adapter& adapter, const std::optional<Manifest>& manifest,
                        int threads);

/// The history of the operation's result: {"operation", "parameters", "inputs": [{"adapter",
/// "weight"?, "history"?}], "result"}. The history of the only adapter goes first; several, and
/// inputs of other kinds, have theirs inside.
JsonArray history_after(const Operation& operation, const Digest& result);

/// What a history contradicts: its last entry another result than `now`, or an entry made from one
/// adapter another result before it. Empty: nothing. Entries of operations that record no digests
/// (train, save, repair) prove and contradict nothing.
std::vector<std::string> lineage_faults(const JsonArray& history, const Digest& now);

}  // namespace lora
