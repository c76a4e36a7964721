// Opening an adapter so that as much as possible can still be said about it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/config_check.h"

namespace lora {

struct OpenedAdapter {
  Adapter adapter;
  std::vector<ConfigProblem> config_problems;  ///< of the directory's own adapter_config.json
};

/// As open_adapter, except that what PEFT refuses in adapter_config.json is listed instead of
/// thrown while the rest can be read. A given `config` is taken as it is.
OpenedAdapter open_to_verify(const std::filesystem::path& path,
                             const std::optional<AdapterConfig>& config);

/// Why a path could not be opened: the rule that says it, and its message where the rule knows more
/// than the error.
struct UnreadableReason {
  std::string_view rule;
  std::string message;
};

/// LV103 for weights without any tensor, LV304 for a header that names a tensor twice (with both
/// byte ranges and whether their contents are equal), LV101 for everything else.
UnreadableReason reason_of(const std::filesystem::path& path);

}  // namespace lora
