// Many adapters of one run, each opened once, and which of them exclude each other.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/config_check.h"
#include "lora/adapter/manifest.h"
#include "lora/ops/adapter_set.h"

namespace lora {

/// Finds the adapters that one cannot be active together with, without comparing every pair: what
/// two adapters may share (a site, a replaced parameter, a token row) is looked up in tables that
/// hold all of them, so that a run costs time in proportion to its adapters and their conflicts.
class AdapterIndex {
 public:
  struct Entry {
    Adapter adapter;
    std::vector<ConfigProblem> config_problems;  ///< such an adapter conflicts with none
    std::optional<Manifest> manifest;
    StatedBase base;
  };

  /// Opens the adapter at `path` as verify does, unless it is known already. Throws as open_adapter
  /// and read_manifest do for what even verify cannot read, and adds nothing then.
  void open(const std::filesystem::path& path,
            const std::optional<AdapterConfig>& config = std::nullopt);

  const std::vector<Entry>& entries() const { return entries_; }
  /// nullptr when no adapter of this path is known.
  const Entry* find(const std::filesystem::path& path) const;

  /// Exactly the entries for which conflicts_between(adapter, entry) is not empty, sorted by path.
  /// `adapter` itself may be one of the entries and is none of the result.
  std::vector<const Entry*> conflicting(const Adapter& adapter) const;

 private:
  using Members = std::vector<std::size_t>;  ///< positions in entries_
  struct Values {
    Tensor tensor;
    Members members;
  };

  void index(std::size_t position);

  std::vector<Entry> entries_;
  std::map<std::filesystem::path, std::size_t> by_path_;
  /// Shapes of the weight that the factors of a site say, by module path.
  std::map<std::string, std::map<std::pair<std::int64_t, std::int64_t>, Members>> shapes_;
  std::map<std::string, std::vector<Values>> replacements_;  ///< by base_name
  std::map<std::string, Members> replacing_, adapting_;      ///< by module path
  std::map<std::pair<std::string, std::int64_t>, Members> token_rows_;
  std::map<std::set<std::string>, Members> parameters_;  ///< by target_parameters, where there are
  Members with_biases_, with_kasa_, without_kasa_, rewriting_base_;
};

}  // namespace lora
