// The adapters of every kind that PEFT wrote (tests/golden/adapter/kinds, format in its README).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "adapter/golden.h"
#include "lora/adapter/adapter.h"
#include "lora/format/safetensors.h"

namespace lora::testing {

struct KindFixture {
  std::string name;
  std::string kind;
  std::filesystem::path path;    ///< what open_adapter takes
  std::filesystem::path base;    ///< directory with model.safetensors and config.json
  std::filesystem::path deltas;  ///< safetensors file by base_name, in the base's layout
};

inline std::vector<KindFixture> kind_fixtures() {
  const std::filesystem::path root = golden("kinds");
  std::vector<KindFixture> fixtures;
  const Json manifest = read_json_file(root / "manifest.json");
  for (const Json& entry : *manifest.as_array()) {
    const auto text = [&](const char* field) { return *entry.find(field)->as_string(); };
    fixtures.push_back({text("name"), text("kind"), root / text("path"), root / text("base"),
                        root / text("deltas")});
  }
  return fixtures;
}

/// Every tensor of a base as a bare parameter, which is all that settle_parameters looks at.
inline ModuleList parameters_of_base(const std::filesystem::path& base) {
  ModuleList modules;
  for (const auto& [name, tensor] : read_safetensors(base / "model.safetensors").tensors) {
    ModuleInfo info;
    info.module_path = name;
    info.kind = LayerKind::parameter;
    info.weight_shape = tensor.shape;
    modules.push_back(std::move(info));
  }
  return modules;
}

inline std::string model_type_of(const std::filesystem::path& base) {
  return *read_json_file(base / "config.json").find("model_type")->as_string();
}

}  // namespace lora::testing
