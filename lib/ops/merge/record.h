// lora_merge.json: of what a merged checkpoint was made, by digests.
//
// No paths and no times: the same merge gives the same bytes.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/base/sha256.h"
#include "lora/base/sinks.h"
#include "lora/format/json.h"

namespace lora::merging {

inline constexpr const char* kRecordName = "lora_merge.json";

struct Record {
  Digest base_root;
  std::vector<Digest> adapters;  ///< adapter_digest, in the order of application
  std::vector<double> weights;
  std::string dtype;   ///< of --dtype; empty: as the base
  std::string compat;  ///< "merge" or "safe_merge"
  Digest root;         ///< of what was written
  /// Second names in the base that are tensors of their own in the merge, by what they stood for.
  std::map<std::string, std::string> untied;
};

/// {"schema": "lora.merge_record/1", "base_root", "adapters": [{"sha256", "weight"}], "dtype",
/// "compat", "root", "untied": {NAME: NAME} where there are any}.
Json to_json(const Record& record);

/// A record as one step of a history (ops/lineage.h), with the base among its inputs. Throws
/// Error(malformed) when it is none.
JsonObject history_of(const Json& document);

/// The record beside a merged checkpoint; nullopt when there is none that this program wrote.
std::optional<Record> read_record(const std::filesystem::path& directory);

/// What lies at `output`, next to a merge with these inputs (`wanted.root` is not looked at): "up
/// to date", "stale: ..." or "foreign: ...". Hashes the weights there when the inputs agree.
std::string state_of(const std::filesystem::path& output, const Record& wanted, int threads,
                     const Sinks& sinks);

}  // namespace lora::merging
