#include "lora/adapter/adapter.h"

#include <cmath>

#include "adapter/golden.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::config_of;
using Kind = KeyProblem::Kind;

const char* const kPrefix = "base_model.model.";

Tensor zeros(std::vector<std::int64_t> shape, DType dtype = DType::f32) {
  std::size_t count = bits_of(dtype) / 8;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return Tensor::from_bytes(dtype, std::move(shape), std::vector<std::byte>(count));
}

Tensor ones(std::int64_t size) {
  return Tensor::from_f32({size}, std::vector<float>(static_cast<std::size_t>(size), 1.0F));
}

/// The factors of one Linear(4, 6) of rank 2 under `name`.
TensorMap factors(const std::string& name) {
  return {{name + ".lora_A.weight", zeros({2, 4})}, {name + ".lora_B.weight", zeros({6, 2})}};
}

AdapterConfig rank_two() { return config_of(R"({"r": 2, "lora_alpha": 6})"); }

Adapter made(TensorMap tensors, const AdapterConfig& config = rank_two()) {
  return make_adapter(config, std::move(tensors), "a");
}

void require_problem(const Adapter& adapter, Kind kind, const std::string& key,
                     const std::string& part) {
  REQUIRE(adapter.problems.size() == 1);
  CHECK(adapter.problems[0].kind == kind);
  CHECK(adapter.problems[0].key == key);
  INFO(adapter.problems[0].message);
  CHECK(adapter.problems[0].message.find(part) != std::string::npos);
}

TEST_CASE("pairs become modules with rank, alpha and scaling") {
  TensorMap tensors = factors(std::string(kPrefix) + "b");
  tensors.merge(factors(std::string(kPrefix) + "a"));
  const Adapter adapter =
      made(tensors, config_of(R"({"r": 2, "lora_alpha": 6, "alpha_pattern": {"b": 1}})"));
  CHECK(adapter.problems.empty());
  CHECK(adapter.unclean_keys.empty());
  REQUIRE(adapter.modules.size() == 2);
  CHECK(adapter.modules[0].module_path == "a");
  CHECK(adapter.modules[0].rank == 2);
  CHECK(adapter.modules[0].alpha == 6);
  CHECK(adapter.modules[0].scaling == 3);
  CHECK(adapter.modules[0].kind == LayerKind::linear);
  CHECK(adapter.find("b")->scaling == 0.5);
  CHECK(adapter.find("c") == nullptr);
}

TEST_CASE("an embedding pair has its own kind and its magnitude") {
  const Adapter adapter = made({{"base_model.model.e.lora_embedding_A", zeros({2, 32})},
                                {"base_model.model.e.lora_embedding_B", zeros({8, 2})},
                                {"base_model.model.e.lora_magnitude_vector", ones(8)}});
  CHECK(adapter.problems.empty());
  REQUIRE(adapter.modules.size() == 1);
  CHECK(adapter.modules[0].kind == LayerKind::embedding);
  CHECK(adapter.modules[0].magnitude.has_value());
}

TEST_CASE("unclean names are normalised and listed") {
  const Adapter adapter = made({{"module.fc.lora_A.default.weight", zeros({2, 4})},
                                {"_orig_mod.base_model.model.fc.lora_B.weight", zeros({6, 2})}});
  CHECK(adapter.problems.empty());
  CHECK(adapter.unclean_keys ==
        std::vector<std::string>{"_orig_mod.base_model.model.fc.lora_B.weight",
                                 "module.fc.lora_A.default.weight"});
  CHECK(adapter.tensors.contains("base_model.model.fc.lora_A.weight"));
  CHECK(adapter.find("fc") != nullptr);
}

TEST_CASE("a factor without its counterpart is reported") {
  TensorMap tensors = factors("base_model.model.fc");
  SECTION("A missing") {
    tensors.erase("base_model.model.fc.lora_A.weight");
    require_problem(made(tensors), Kind::unpaired, "base_model.model.fc.lora_B.weight",
                    "lora_A of fc is missing");
  }
  SECTION("B missing") {
    tensors.erase("base_model.model.fc.lora_B.weight");
    require_problem(made(tensors), Kind::unpaired, "base_model.model.fc.lora_A.weight",
                    "lora_B of fc is missing");
  }
  SECTION("magnitude alone") {
    require_problem(made({{"base_model.model.fc.lora_magnitude_vector", ones(6)}}), Kind::unpaired,
                    "base_model.model.fc.lora_magnitude_vector", "A or B of fc is missing");
  }
  SECTION("embedding") {
    require_problem(made({{"base_model.model.e.lora_embedding_B", zeros({8, 2})}}), Kind::unpaired,
                    "base_model.model.e.lora_embedding_B", "lora_embedding_A of e is missing");
  }
}

TEST_CASE("factors of different rank do not become a module") {
  TensorMap tensors = factors("base_model.model.fc");
  tensors["base_model.model.fc.lora_B.weight"] = zeros({6, 3});
  const Adapter adapter = made(tensors);
  require_problem(adapter, Kind::rank_mismatch, "base_model.model.fc.lora_A.weight",
                  "has 2 rows and B of fc has 3 columns");
  CHECK(adapter.modules.empty());
  CHECK(adapter.tensors.size() == 2);
}

TEST_CASE("factors that are exchanged or transposed are called so") {
  const std::string a = "base_model.model.fc.lora_A.weight",
                    b = "base_model.model.fc.lora_B.weight";
  const AdapterConfig config = config_of(R"({"r": 2})");
  require_problem(made({{a, zeros({6, 2})}, {b, zeros({2, 4})}}, config), Kind::bad_shape, a,
                  "looks exchanged with its counterpart, or both are transposed: A of fc is [6, 2] "
                  "and B is [2, 4], expected A [2, inputs] and B [outputs, 2]");
  require_problem(made({{a, zeros({6, 2})}, {b, zeros({2, 6})}}, config), Kind::bad_shape, a,
                  "looks exchanged");
  require_problem(made({{a, zeros({4, 2})}, {b, zeros({6, 2})}}, config), Kind::bad_shape, a,
                  "looks transposed");
  require_problem(made({{a, zeros({2, 4})}, {b, zeros({2, 6})}}, config), Kind::bad_shape, b,
                  "looks transposed");
  // A layer as wide as the configured rank is another thing than a factor on its side.
  require_problem(made({{a, zeros({4, 8})}, {b, zeros({8, 4})}}, config_of(R"({"r": 8})")),
                  Kind::rank_mismatch, a, "has rank 4, expected 8");
  CHECK(made({{a, zeros({2, 2})}, {b, zeros({2, 2})}}, config).problems.empty());
}

TEST_CASE("of several adapters in one file one is taken and the others are a problem") {
  TensorMap tensors = factors("base_model.model.fc");
  tensors["base_model.model.fc.lora_A.second.weight"] = ones(8);
  tensors["base_model.model.fc.lora_B.second.weight"] = ones(9);
  const Adapter adapter = made(tensors);
  require_problem(adapter, Kind::other_adapter, "base_model.model.fc.lora_A.second.weight",
                  "belongs to the adapter \"second\" and the file holds \"default\" too");
  CHECK(adapter.name == "default");
  CHECK(adapter.file_keys == 4);
  CHECK(adapter.tensors.size() == 2);
  CHECK(adapter.others.at("second").size() == 2);
  const Adapter second = make_adapter(AdapterConfig(), tensors, "a", "second");
  CHECK(second.name == "second");
  CHECK(second.tensors.at("base_model.model.fc.lora_B.weight").shape ==
        std::vector<std::int64_t>{9});
  // Parameters of the base belong to every adapter.
  tensors["base_model.model.head.weight"] = ones(3);
  CHECK(make_adapter(AdapterConfig(), tensors, "a", "second").tensors.size() == 3);
}

TEST_CASE("a rank other than the configured one is reported") {
  require_problem(made(factors("base_model.model.fc"), config_of(R"({"r": 8})")),
                  Kind::rank_mismatch, "base_model.model.fc.lora_A.weight", "expected 8");
}

TEST_CASE("tensors that are no factors are reported") {
  TensorMap tensors = factors("base_model.model.fc");
  const std::string a = "base_model.model.fc.lora_A.weight";
  SECTION("zero-sized") {
    tensors[a] = zeros({0});
    require_problem(made(tensors), Kind::bad_shape, a, "without gathering");
  }
  SECTION("one dimension") {
    tensors[a] = zeros({8});
    require_problem(made(tensors), Kind::bad_shape, a, "expected a float tensor of 2 dimensions");
  }
  SECTION("integers") {
    tensors[a] = zeros({2, 4}, DType::i64);
    require_problem(made(tensors), Kind::bad_shape, a, "is I64 [2, 4]");
  }
  SECTION("bias of another width") {
    tensors["base_model.model.fc.lora_B.bias"] = ones(5);
    const Adapter adapter = made(tensors);
    require_problem(adapter, Kind::bad_shape, "base_model.model.fc.lora_B.bias", "expected [6]");
    CHECK_FALSE(adapter.modules.at(0).bias.has_value());
  }
}

TEST_CASE("two names for one tensor are reported and the clean one is kept") {
  TensorMap tensors = factors("base_model.model.fc");
  tensors["base_model.model.fc.lora_A.default.weight"] =
      Tensor::from_f32({2, 4}, std::vector<float>(8, 1.0F));
  const Adapter adapter = made(tensors);
  require_problem(adapter, Kind::duplicate, "base_model.model.fc.lora_A.default.weight",
                  "second name of base_model.model.fc.lora_A.weight");
  CHECK(adapter.modules.at(0).a.to_f32()[0] == 0.0F);
}

TEST_CASE("PEFT's redundant copy of a saved bias is a problem only when it differs") {
  const AdapterConfig config = config_of(R"({"r": 2, "bias": "all", "modules_to_save": ["head"]})");
  TensorMap tensors{{"base_model.model.head.bias", ones(3)},
                    {"base_model.model.head.modules_to_save.bias", ones(3)}};
  CHECK(made(tensors, config).problems.empty());
  tensors["base_model.model.head.modules_to_save.bias"] = zeros({3});
  require_problem(made(tensors, config), Kind::duplicate,
                  "base_model.model.head.modules_to_save.bias", "second name");
}

TEST_CASE("base parameters are replacements only when the configuration explains them") {
  const TensorMap tensors{{"base_model.model.fc.base_layer.bias", ones(6)},
                          {"base_model.model.norm.bias", ones(4)},
                          {"base_model.model.lm_head.weight", zeros({3, 4})},
                          {"base_model.model.head.dense.weight", zeros({3, 4})},
                          {"base_model.model.fc.weight", zeros({6, 4})}};
  const auto replaced = [&](const char* members) {
    TensorMap all = tensors;
    all.merge(factors("base_model.model.fc"));
    std::vector<std::string> names;
    for (const auto& [name, tensor] : made(all, config_of(members)).replacements)
      names.push_back(name);
    return names;
  };
  using Names = std::vector<std::string>;
  CHECK(replaced(R"({"r": 2})") == Names{"lm_head.weight"});
  CHECK(replaced(R"({"r": 2, "bias": "lora_only"})") == Names{"fc.bias", "lm_head.weight"});
  CHECK(replaced(R"({"r": 2, "bias": "all"})") == Names{"fc.bias", "lm_head.weight", "norm.bias"});
  CHECK(replaced(R"({"r": 2, "modules_to_save": ["head"]})") ==
        Names{"head.dense.weight", "lm_head.weight"});
}

TEST_CASE("a tensor that would overwrite the base is reported") {
  require_problem(made({{"base_model.model.fc.weight", zeros({6, 4})}}), Kind::unknown,
                  "base_model.model.fc.weight", "is the base parameter fc.weight");
}

}  // namespace
}  // namespace lora
