// The tokenizers of tests/golden/text.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace lora::testing {

inline const std::filesystem::path kGolden =
    std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/text";

inline std::vector<std::string> tokenizer_fixtures() {
  constexpr std::string_view kEnding = ".tokenizer.json";
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    std::string name = entry.path().filename().string();
    if (!name.ends_with(kEnding)) continue;
    name.resize(name.size() - kEnding.size());
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace lora::testing
