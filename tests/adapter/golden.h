// Where the files written by the real PEFT are (scripts/make_adapter_fixtures.py).
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/base/module.h"
#include "lora/format/json.h"

namespace lora::testing {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/adapter" / name;
}

inline std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// A configuration from the members a user would give, e.g. R"({"r": 4})".
inline AdapterConfig config_of(const std::string& members) {
  Json document = parse_json(members, "test");
  (*document.as_object())["peft_type"] = "LORA";
  return parse_adapter_config(document, "test.json");
}

}  // namespace lora::testing
