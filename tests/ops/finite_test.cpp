#include "ops/merge/finite.h"

#include <cstring>
#include <limits>

#include "support/testing.h"

using namespace lora;

TEST_CASE("NaN and infinity are found in every dtype and place, the largest numbers are not") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    const std::size_t width = bits_of(dtype) / 8;
    const float largest = dtype == DType::f16 ? 65504.0F : 0x1.FEp127F;  // bf16 holds it too
    for (const std::size_t count : {0, 1, 7, 64, 101}) {
      std::vector<float> values;
      for (std::size_t i = 0; i < count; ++i)
        values.push_back(i % 3 == 0 ? largest : i % 3 == 1 ? -largest : -0.0F);
      const auto bytes_of = [&] {
        std::vector<std::byte> bytes(values.size() * width);
        narrow(values, dtype, bytes.data());
        return bytes;
      };
      CHECK(merging::is_finite(dtype, bytes_of()));
      for (std::size_t i = 0; i < count; ++i)
        for (const float bad : {infinity, -infinity, std::nanf("")}) {
          const float kept = std::exchange(values[i], bad);
          CHECK(!merging::is_finite(dtype, bytes_of()));
          values[i] = kept;
        }
    }
  }
  // A NaN of one bit, the smallest of all.
  const std::uint32_t quiet = 0x7F800001U;
  std::vector<std::byte> bytes(4);
  std::memcpy(bytes.data(), &quiet, 4);
  CHECK(!merging::is_finite(DType::f32, bytes));
  CHECK(merging::is_finite(DType::i64, std::vector<std::byte>(8, std::byte{0xFF})));
}
