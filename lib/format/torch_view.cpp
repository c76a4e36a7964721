#include "format/torch_view.h"

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

Error outside_storage(const pickle::TensorView& view, std::size_t storage_bytes) {
  return Error(ErrorKind::malformed,
               "a view of shape " + shape_to_string(view.shape) + " with strides " +
                   shape_to_string(view.strides) + " at offset " + std::to_string(view.offset) +
                   " reaches beyond its storage of " + std::to_string(storage_bytes) + " bytes");
}

/// offset + sum((extent - 1) * stride) + 1, the elements a view needs; all extents positive.
std::optional<std::uint64_t> elements_reached(const pickle::TensorView& view) {
  auto reach = checked_add(view.offset, 1);
  for (std::size_t i = 0; reach && i < view.shape.size(); ++i) {
    const auto step = checked_mul(static_cast<std::uint64_t>(view.shape[i] - 1),
                                  static_cast<std::uint64_t>(view.strides[i]));
    reach = step ? checked_add(*reach, *step) : std::nullopt;
  }
  return reach;
}

// Walks all dimensions but the last with an odometer; the last is one strided run.
void copy_strided(const pickle::TensorView& view, std::span<const std::byte> storage,
                  std::byte* out) {
  const std::size_t width = view.element->bytes;
  const std::size_t inner = view.shape.size() - 1;
  const auto run = static_cast<std::size_t>(view.shape[inner]);
  const std::size_t step = static_cast<std::size_t>(view.strides[inner]) * width;
  std::vector<std::int64_t> index(inner, 0);
  auto at = static_cast<std::size_t>(view.offset);
  while (true) {
    const std::byte* from = storage.data() + at * width;
    if (step == width) {
      std::memcpy(out, from, run * width);
      out += run * width;
    } else {
      for (std::size_t i = 0; i < run; ++i, out += width) std::memcpy(out, from + i * step, width);
    }
    std::size_t axis = inner;
    for (; axis > 0; --axis) {
      const std::size_t i = axis - 1;
      const auto stride = static_cast<std::size_t>(view.strides[i]);
      at += stride;
      if (++index[i] < view.shape[i]) break;
      at -= stride * static_cast<std::size_t>(view.shape[i]);
      index[i] = 0;
    }
    if (axis == 0) return;
  }
}

}  // namespace

bool is_contiguous(const pickle::TensorView& view) {
  std::uint64_t expected = 1;
  for (std::size_t i = view.shape.size(); i-- > 0;) {
    if (view.shape[i] == 1) continue;
    if (static_cast<std::uint64_t>(view.strides[i]) != expected) return false;
    expected *= static_cast<std::uint64_t>(view.shape[i]);
  }
  return true;
}

Tensor view_tensor(const pickle::TensorView& view, std::span<const std::byte> storage,
                   const std::shared_ptr<const void>& keep_alive, AllocationBudget& budget) {
  if (!view.element->dtype)
    throw Error(ErrorKind::unsupported,
                "found dtype " + std::string(view.element->torch_name) + ", which is not handled");
  const DType dtype = *view.element->dtype;
  const std::uint64_t width = view.element->bytes;
  const auto count = checked_numel(view.shape);
  const auto size = count ? checked_mul(*count, width) : std::nullopt;
  if (!size || *size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    throw Error(ErrorKind::malformed,
                "the size of shape " + shape_to_string(view.shape) + " overflows");
  if (*size == 0) return {dtype, view.shape, {}, keep_alive};
  const auto reach = elements_reached(view);
  const auto reach_bytes = reach ? checked_mul(*reach, width) : std::nullopt;
  if (!reach_bytes || *reach_bytes > storage.size()) throw outside_storage(view, storage.size());
  if (is_contiguous(view))
    return {dtype, view.shape,
            storage.subspan(static_cast<std::size_t>(view.offset * width),
                            static_cast<std::size_t>(*size)),
            keep_alive};
  if (!budget.spend(*size))
    throw Error(ErrorKind::unsupported,
                "a view of shape " + shape_to_string(view.shape) + " with strides " +
                    shape_to_string(view.strides) +
                    " would take more memory than a file of its size justifies")
        .with_hint("save the tensor with .contiguous()");
  std::vector<std::byte> data(static_cast<std::size_t>(*size));
  copy_strided(view, storage, data.data());
  return Tensor::from_bytes(dtype, view.shape, std::move(data));
}

}  // namespace lora
