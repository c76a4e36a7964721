#include "lora/adapter/name_mapping.h"

#include "support/testing.h"

using namespace lora;

namespace {

using Names = std::vector<std::string>;

Names layered(const std::string& front, int layers, const Names& leaves) {
  Names names;
  for (int i = 0; i < layers; ++i)
    for (const std::string& leaf : leaves) names.push_back(front + std::to_string(i) + "." + leaf);
  return names;
}

Names operator+(Names x, const Names& y) {
  x.insert(x.end(), y.begin(), y.end());
  return x;
}

}  // namespace

TEST_CASE("a prefix that appeared in the base is one rule for all modules") {
  const NameMapping mapping =
      map_names(layered("model.layers.", 3, {"mlp.up_proj", "self_attn.q_proj"}),
                layered("model.language_model.layers.", 3, {"mlp.up_proj", "self_attn.q_proj"}));
  REQUIRE(mapping.is_complete());
  REQUIRE(mapping.renames.size() == 6);
  REQUIRE(mapping.renames.at("model.layers.2.mlp.up_proj") ==
          "model.language_model.layers.2.mlp.up_proj");
  REQUIRE(describe_rules(mapping) == "model.* -> model.language_model.* (6 modules)");
}

TEST_CASE("modules under their own name are counted and never renamed") {
  const NameMapping mapping = map_names({"a.q", "b.k"}, {"a.q", "c.b.k"});
  REQUIRE(mapping.unchanged == 1);
  REQUIRE(mapping.renames == std::map<std::string, std::string>{{"b.k", "c.b.k"}});
  REQUIRE(map_names({"a.q"}, {"a.q", "x.a.q"}).renames.empty());
}

TEST_CASE("a component renamed in the middle is found by what is around it") {
  const NameMapping mapping =
      map_names(layered("h.", 2, {"attn.c_attn"}),
                layered("h.", 2, {"attention.c_attn"}) + layered("cross.h.", 2, {"other.c_attn"}));
  REQUIRE(mapping.renames.at("h.1.attn.c_attn") == "h.1.attention.c_attn");
  REQUIRE(describe_rules(mapping) == "h.*.attn.* -> h.*.attention.* (2 modules)");
}

TEST_CASE("two equally good modules are ambiguous until a rule of other modules decides") {
  const Names base = layered("model.text.layers.", 2, {"q_proj", "gate_proj"}) +
                     layered("model.vision.layers.", 2, {"q_proj"});
  const NameMapping open = map_names(layered("model.layers.", 2, {"q_proj"}), base);
  REQUIRE(open.renames.empty());
  REQUIRE(open.ambiguous.at("model.layers.0.q_proj") ==
          Names{"model.text.layers.0.q_proj", "model.vision.layers.0.q_proj"});
  const NameMapping decided = map_names(layered("model.layers.", 2, {"q_proj", "gate_proj"}), base);
  REQUIRE(decided.is_complete());
  REQUIRE(decided.renames.at("model.layers.1.q_proj") == "model.text.layers.1.q_proj");
}

TEST_CASE("shapes may decide what names leave open") {
  const NameMapping mapping = map_names(
      {"model.layers.0.q_proj"}, {"model.text.layers.0.q_proj", "model.vision.layers.0.q_proj"},
      [](const std::string&, const std::string& path) {
        return path.find("vision") == std::string::npos;
      });
  REQUIRE(mapping.renames.at("model.layers.0.q_proj") == "model.text.layers.0.q_proj");
}

TEST_CASE("other layer indices and other leaves never match") {
  const NameMapping mapping = map_names({"model.layers.7.q_proj", "model.layers.0.w1"},
                                        layered("model.x.layers.", 2, {"q_proj", "up_proj"}));
  REQUIRE(mapping.unmatched == Names{"model.layers.0.w1", "model.layers.7.q_proj"});
}

TEST_CASE("two modules that would become one stay ambiguous") {
  const NameMapping mapping = map_names({"a.b.q", "c.b.q"}, {"x.b.q"});
  REQUIRE(mapping.renames.empty());
  REQUIRE(mapping.ambiguous.size() == 2);
}

TEST_CASE("sites inside another LoRA layer move with it") {
  const NameMapping mapping =
      map_names({"layers.0.experts", "layers.0.experts.base_layer", "attn.base_layer.out_proj"},
                {"text.layers.0.experts", "text.attn.out_proj"});
  REQUIRE(mapping.is_complete());
  REQUIRE(mapping.renames.at("layers.0.experts.base_layer") == "text.layers.0.experts.base_layer");
  REQUIRE(mapping.renames.at("attn.base_layer.out_proj") == "text.attn.base_layer.out_proj");
}

TEST_CASE("a front of the adapter that the base does not have is dropped") {
  const NameMapping mapping = map_names(layered("thinker.base_model.model.layers.", 2, {"q_proj"}),
                                        layered("layers.", 2, {"q_proj"}));
  REQUIRE(describe_rules(mapping) == "thinker.base_model.model.* -> * (2 modules)");
}

TEST_CASE("the nearest name shares the longest end") {
  const Names base = layered("model.layers.", 2, {"self_attn.q_proj", "mlp.up_proj"});
  REQUIRE(nearest_name("model.layers.1.attn.q_proj", base) == "model.layers.1.self_attn.q_proj");
  REQUIRE(nearest_name("x.unknown", base).empty());
}
