#include "checkpoint/infer_mlp.h"

#include "checkpoint_fixture.h"

namespace lora {
namespace {

using testing::sample;
using Names = std::vector<std::string>;

struct Shape {
  std::string path;
  std::int64_t in, out;
};

InferredMlp infer(const std::vector<Shape>& layers, const Names& file_order = {}) {
  TensorMap tensors;
  for (const Shape& layer : layers)
    tensors[layer.path + ".weight"] = sample({layer.out, layer.in}, 1);
  return infer_mlp(tensors, file_order);
}

}  // namespace

TEST_CASE("numbered layers follow their numbers, not their bytes") {
  std::vector<Shape> layers;
  for (int i = 0; i < 12; ++i) layers.push_back({"net." + std::to_string(2 * i), 4, 4});
  const InferredMlp inferred = infer(layers);
  REQUIRE(inferred.config);
  CHECK(inferred.config->layers[1] == "net.2");
  CHECK(inferred.config->layers[5] == "net.10");
  CHECK(infer({{"layers.1.linear", 4, 2}, {"layers.0.linear", 3, 4}}).config->layers ==
        Names{"layers.0.linear", "layers.1.linear"});
}

TEST_CASE("unnumbered layers follow the file's order, else the only order that chains") {
  const std::vector<Shape> square{{"inner", 4, 4}, {"alpha", 4, 4}};
  CHECK(infer(square, {"inner.weight", "alpha.weight"}).config->layers == Names{"inner", "alpha"});
  const InferredMlp ambiguous = infer(square);
  CHECK_FALSE(ambiguous.config);
  CHECK(ambiguous.reason.find("more than one order") != std::string::npos);
  CHECK(infer({{"b_in", 3, 5}, {"a_out", 5, 2}}).config->layers == Names{"b_in", "a_out"});
}

TEST_CASE("what is no chain is refused with the reason") {
  const auto refused = [](const InferredMlp& inferred, const std::string& part) {
    INFO(inferred.reason);
    CHECK_FALSE(inferred.config);
    CHECK(inferred.reason.find(part) != std::string::npos);
  };
  refused(infer({{"fc1", 3, 4}, {"fc2", 5, 2}}), "numbered layers do not chain");
  refused(infer({{"a", 3, 4}, {"b", 5, 2}}), "layers do not chain");
  refused(infer({{"x.lora_A", 3, 4}, {"x.lora_B", 4, 3}}), "belongs to an adapter");
  refused(infer({{"embed_tokens", 3, 4}}), "embedding by its name");
  refused(infer_mlp({{"weight", sample({2, 2}, 1)}}, {}), "no weight or bias of a Linear");
  refused(infer_mlp({{"a.weight", sample({2}, 1)}}, {}), "no weight of a Linear");
  refused(infer_mlp({{"a.weight", sample({2, 2}, 1)}, {"a.bias", sample({3}, 1)}}, {}), "no bias");
  refused(infer_mlp({{"a.bias", sample({3}, 1)}}, {}), "no bias");
  refused(infer_mlp({}, {}), "no tensors");
}

TEST_CASE("thousands of equal layers without an order are refused quickly") {
  std::vector<Shape> layers{{"start", 3, 4}, {"other", 9, 9}};
  for (char a = 'a'; a <= 'z'; ++a)
    for (char b = 'a'; b <= 'z'; ++b) layers.push_back({std::string("x") + a + b, 4, 4});
  CHECK_FALSE(infer(layers).config);
}

}  // namespace lora
