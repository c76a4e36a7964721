#include <numeric>

#include "checkpoint/gguf_base.h"
#include "support/testing.h"

namespace lora {
namespace {

constexpr std::uint32_t kF32 = 0;

// The numbers from 0 on, as a file has them.
struct Stored {
  explicit Stored(std::vector<std::int64_t> shape) {
    std::size_t count = 1;
    for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
    values.resize(count);
    std::iota(values.begin(), values.end(), 0.0F);
    tensor.name = "t";
    tensor.format = gguf_format(kF32);
    tensor.shape = std::move(shape);
    tensor.bytes = std::as_bytes(std::span<const float>(values));
  }
  GgufWeight weight(std::vector<std::int64_t> shape) const {
    GgufWeight out;
    out.tensor = &tensor;
    out.shape = std::move(shape);
    return out;
  }
  std::vector<float> values;
  GgufTensor tensor;
};

std::vector<float> loaded(const GgufWeight& weight) {
  const Tensor tensor = load_gguf_weight(weight, DType::f32);
  REQUIRE(tensor.shape == weight.shape);
  return tensor.to_f32();
}

TEST_CASE("a matrix that a converter has turned is turned back") {
  const Stored stored({2, 3});
  GgufWeight weight = stored.weight({3, 2});
  weight.is_transposed = true;
  REQUIRE(loaded(weight) == std::vector<float>{0, 3, 1, 4, 2, 5});
  // More rows than one thread reads at a time.
  const Stored tall({200, 2});
  GgufWeight wide = tall.weight({2, 200});
  wide.is_transposed = true;
  const std::vector<float> values = loaded(wide);
  for (std::size_t i = 0; i < 200; ++i) {
    REQUIRE(values[i] == static_cast<float>(2 * i));
    REQUIRE(values[200 + i] == static_cast<float>(2 * i + 1));
  }
}

TEST_CASE("queries, keys and values of a head stand together again") {
  // Two heads of two: q0 q0 q1 q1 k0 k0 k1 k1 v0 v0 v1 v1.
  const Stored stored({12});
  GgufWeight weight = stored.weight({12});
  weight.rows = GgufRows::thirds;
  weight.heads = 2;
  REQUIRE(loaded(weight) == std::vector<float>{0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11});
}

TEST_CASE("a norm that has grown by one shrinks again") {
  const Stored stored({3});
  GgufWeight weight = stored.weight({3});
  weight.adds_one = true;
  REQUIRE(loaded(weight) == std::vector<float>{-1, 0, 1});
}

TEST_CASE("an expert is one of the matrices that stand one behind another") {
  const Stored stored({3, 2, 2});
  GgufWeight weight = stored.weight({2, 2});
  weight.part = 2;
  REQUIRE(loaded(weight) == std::vector<float>{8, 9, 10, 11});
}

}  // namespace
}  // namespace lora
