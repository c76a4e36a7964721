#include "engine/train/finite_base.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/bridge.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

// Index of the first value that is not finite, a few megabytes at a time.
std::optional<std::int64_t> first_bad(const at::Tensor& values) {
  constexpr std::int64_t kAtATime = std::int64_t{1} << 20;
  for (std::int64_t begin = 0; begin < values.numel(); begin += kAtATime) {
    const at::Tensor part = values.narrow(0, begin, std::min(kAtATime, values.numel() - begin));
    const at::Tensor bad = at::isfinite(part).logical_not();
    if (bad.any().item<bool>()) return begin + at::nonzero(bad)[0].item<std::int64_t>();
  }
  return std::nullopt;
}

std::string place_of(std::int64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> place(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    place[i] = index % shape[i];
    index /= shape[i];
  }
  return shape_to_string(place);
}

}  // namespace

void require_finite_base(const Checkpoint& base, const std::string& what, std::int64_t step) {
  for (const auto& [name, tensor] : base.tensors) {
    if (!is_float(tensor.dtype) || tensor.numel() == 0) continue;
    const at::Tensor values = view_of(tensor).reshape({-1});
    const auto index = first_bad(values);
    if (!index) continue;
    const bool is_nan = std::isnan(values[*index].item<double>());
    throw Error(ErrorKind::malformed,
                "the base " + base.path.string() + " holds " + (is_nan ? "nan" : "an infinity") +
                    " in " + name + " at " + place_of(*index, tensor.shape) + ", so the " + what +
                    " of step " + std::to_string(step) + " is not finite, expected finite weights")
        .in_file(base.path.string())
        .in_tensor(name)
        .with_hint("fetch or convert the base again; lora inspect BASE shows its tensors");
  }
}

}  // namespace lora::engine
