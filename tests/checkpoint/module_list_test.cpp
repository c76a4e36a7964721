#include "lora/checkpoint/checkpoint.h"
#include "support/testing.h"

namespace lora {
namespace {

Checkpoint base(const std::string& name) {
  return open_checkpoint(LORA_SOURCE_DIR "/tests/golden/adapter/kinds/bases/" + name);
}

const ModuleInfo* find(const ModuleList& modules, const std::string& path) {
  for (const ModuleInfo& module : modules)
    if (module.module_path == path) return &module;
  return nullptr;
}

TEST_CASE("convolutions are deduced from the dimensions of their weights") {
  const ModuleList modules = list_modules(base("convs"));
  CHECK(find(modules, "c1")->class_name == "Conv1d");
  CHECK(find(modules, "c2")->class_name == "Conv2d");
  CHECK(find(modules, "c3")->class_name == "Conv3d");
  CHECK(find(modules, "c3")->kind == LayerKind::convolution);
  CHECK(find(modules, "c2")->weight_shape == std::vector<std::int64_t>{6, 4, 3, 2});
  CHECK(find(modules, "c2")->in_features == 4);
  CHECK(find(modules, "c2")->out_features == 6);
}

TEST_CASE("attention is deduced from its joint projection") {
  const ModuleList modules = list_modules(base("mha"));
  CHECK(find(modules, "attn")->class_name == "MultiheadAttention");
  CHECK(find(modules, "attn")->kind == LayerKind::attention);
  CHECK(find(modules, "attn")->weight_shape == std::vector<std::int64_t>{18, 6});
  CHECK(find(modules, "attn.out_proj")->kind == LayerKind::linear);
  CHECK(find(modules, "attn.in_proj_weight") == nullptr);
}

TEST_CASE("bare expert parameters follow their module, the projection back last") {
  const ModuleList modules = list_modules(base("experts"));
  const ModuleInfo* experts = find(modules, "mlp.experts");
  REQUIRE(experts != nullptr);
  CHECK(experts->kind == LayerKind::other);
  CHECK(experts[1].module_path == "mlp.experts.gate_up_proj");
  CHECK(experts[1].kind == LayerKind::parameter);
  CHECK(experts[1].weight_shape == std::vector<std::int64_t>{3, 10, 4});
  CHECK(experts[2].module_path == "mlp.experts.down_proj");
  CHECK(find(list_modules(base("mlp")), "fc1.weight") == nullptr);
}

}  // namespace
}  // namespace lora
