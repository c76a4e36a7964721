#include "ops/merge/finite.h"

#include <cstdint>
#include <cstring>

#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora::merging {
namespace {

// A value is finite when its bits without the sign are below those of infinity: what is missing
// there to the next power of two carries into the sign. No branch in the loop, and nothing that
// SSE2 does not have.
template <typename Bits>
bool is_below(std::span<const std::byte> bytes, Bits infinity) {
  constexpr auto kNoSign = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);
  const auto missing = static_cast<Bits>(kNoSign + 1 - infinity);
  Bits carries = 0;
  for (std::size_t at = 0; at + sizeof(Bits) <= bytes.size(); at += sizeof(Bits)) {
    Bits value;
    std::memcpy(&value, bytes.data() + at, sizeof(Bits));
    carries = static_cast<Bits>(carries | static_cast<Bits>((value & kNoSign) + missing));
  }
  return carries <= kNoSign;
}

}  // namespace

bool is_finite(DType dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case DType::f16:
      return is_below<std::uint16_t>(bytes, 0x7C00);
    case DType::bf16:
      return is_below<std::uint16_t>(bytes, 0x7F80);
    case DType::f32:
      return is_below<std::uint32_t>(bytes, 0x7F800000U);
    case DType::f64:
      return is_below<std::uint64_t>(bytes, 0x7FF0000000000000U);
    default:
      return true;
  }
}

void require_finite(const std::string& name, DType dtype, std::span<const std::byte> bytes) {
  if (!is_finite(dtype, bytes))
    throw Error(ErrorKind::malformed, "cannot merge: the base's tensor " + name +
                                          " holds NaN or infinity, expected finite numbers")
        .in_tensor(name);
}

void require_finite(const Adapter& adapter) {
  std::vector<std::string> names;
  for (const auto& [key, tensor] : adapter.tensors)
    if (!is_finite(tensor.dtype, tensor.bytes)) names.push_back(key);
  if (names.empty()) return;
  throw Error(ErrorKind::malformed, "cannot merge " + adapter.path.string() +
                                        ": NaN or infinity in " + rules::join_some(names) +
                                        ", expected finite numbers")
      .in_file(adapter.path.string())
      .in_tensor(names.front())
      .with_hint("take an earlier checkpoint of the training run");
}

}  // namespace lora::merging
