#include "lora/base/tensor.h"

#include <cstring>
#include <vector>

#include "lora/base/tensor_digest.h"
#include "support/testing.h"

namespace lora {

using testing::require_error;

TEST_CASE("a tensor keeps its bytes alive") {
  Tensor copy;
  {
    const Tensor tensor = Tensor::from_f32({2, 2}, std::vector<float>{1, 2, 3, 4});
    copy = tensor;
    REQUIRE(copy.bytes.data() == tensor.bytes.data());
  }
  REQUIRE(copy.numel() == 4);
  REQUIRE(copy.to_f32() == std::vector<float>{1, 2, 3, 4});
  REQUIRE(copy.to_f64() == std::vector<double>{1, 2, 3, 4});
}

TEST_CASE("scalars and empty tensors") {
  REQUIRE(Tensor::from_f32({}, std::vector<float>{5}).numel() == 1);
  const Tensor empty = Tensor::from_f32({3, 0}, {});
  REQUIRE(empty.numel() == 0);
  REQUIRE(empty.to_f32().empty());
  REQUIRE(empty.cast(DType::bf16).bytes.empty());
  REQUIRE(shape_to_string(empty.shape) == "[3, 0]");
  REQUIRE(shape_to_string({}) == "[]");
}

TEST_CASE("a tensor refuses bytes that do not fit its shape") {
  const auto make = [](DType dtype, std::vector<std::int64_t> shape, std::size_t size) {
    return [=] { Tensor::from_bytes(dtype, shape, std::vector<std::byte>(size)); };
  };
  require_error(ErrorKind::internal, "shape [2, 2] and dtype F32 does not take 15 bytes",
                make(DType::f32, {2, 2}, 15));
  require_error(ErrorKind::internal, "does not take 0 bytes",
                make(DType::f32, {std::int64_t{1} << 62, 4}, 0));
  require_error(ErrorKind::internal, "does not take", make(DType::f32, {-1}, 4));
  require_error(ErrorKind::internal, "does not take 1 bytes", make(DType::f4, {1}, 1));
  REQUIRE(Tensor::from_bytes(DType::f4, {3, 2}, std::vector<std::byte>(3)).numel() == 6);
}

TEST_CASE("casts round once and refuse other dtypes") {
  const std::int64_t one = 1;
  const Tensor integers = Tensor::from_i64({1}, {&one, 1});
  require_error(ErrorKind::unsupported, "I64", [&] { integers.to_f32(); });
  require_error(ErrorKind::unsupported, "I64", [&] { integers.cast(DType::f32); });
  REQUIRE(integers.cast(DType::i64).bytes.data() == integers.bytes.data());
  const Tensor floats = Tensor::from_f32({3}, std::vector<float>{1.0F, 1.00390625F, -3.0F});
  REQUIRE(floats.cast(DType::bf16).to_f32() == std::vector<float>{1.0F, 1.0F, -3.0F});
  REQUIRE(floats.cast(DType::f64).to_f64() == std::vector<double>{1.0, 1.00390625, -3.0});
  require_error(ErrorKind::unsupported, "I8", [&] { floats.cast(DType::i8); });
  require_error(ErrorKind::unsupported, "I8", [&] { Tensor::from_f32({0}, {}).cast(DType::i8); });
  // 1 + 2^-8 + 2^-40 lies above the tie; by way of f32 it would land on the tie and go down.
  const double above_tie = 1.0 + 0x1p-8 + 0x1p-40;
  std::vector<std::byte> data(8);
  std::memcpy(data.data(), &above_tie, 8);
  const Tensor doubles = Tensor::from_bytes(DType::f64, {1}, data);
  REQUIRE(doubles.cast(DType::bf16).to_f32() == std::vector<float>{1.0F + 0x1p-7F});
}

TEST_CASE("the digest of a tensor is over name, dtype, shape and bytes as documented") {
  const Tensor tensor = Tensor::from_f32({1, 2}, std::vector<float>{1, 2});
  std::string layout("lora.tensor/1\0", 14);
  const auto append_u64 = [&](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) layout += static_cast<char>(value >> (8 * i));
  };
  append_u64(3);
  layout += "w.a";
  append_u64(3);
  layout += "F32";
  append_u64(2);
  append_u64(1);
  append_u64(2);
  append_u64(8);
  layout += std::string("\0\0\x80\x3f\0\0\0\x40", 8);
  REQUIRE(tensor_digest("w.a", tensor) == sha256(std::as_bytes(std::span(layout))));
}

TEST_CASE("the digest of a tensor changes with each of its parts") {
  const Tensor tensor = Tensor::from_f32({1, 2}, std::vector<float>{1, 2});
  const Digest digest = tensor_digest("w", tensor);
  Tensor reshaped = tensor;
  reshaped.shape = {2, 1};
  Tensor retyped = tensor;
  retyped.dtype = DType::i32;
  REQUIRE(tensor_digest("w", tensor) == digest);
  REQUIRE_FALSE(tensor_digest("v", tensor) == digest);
  REQUIRE_FALSE(tensor_digest("w", reshaped) == digest);
  REQUIRE_FALSE(tensor_digest("w", retyped) == digest);
  REQUIRE_FALSE(tensor_digest("w", Tensor::from_f32({1, 2}, std::vector<float>{1, 3})) == digest);
}

}  // namespace lora
