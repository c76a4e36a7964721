#include "adapter/tied_sites.h"

#include <algorithm>
#include <cstring>

#include "lora/base/equal_bytes.h"

namespace lora {
namespace {

bool ensures_tying(const Adapter& adapter) {
  const Json* field = adapter.config.other.find("ensure_weight_tying");
  return field != nullptr && field->as_bool().value_or(false);
}

bool is_transpose(const Tensor& x, const Tensor& y) {
  if (x.dtype != y.dtype || x.shape.size() != 2 || x.shape[0] != y.shape[1] ||
      x.shape[1] != y.shape[0])
    return false;
  const std::size_t item = bits_of(x.dtype) / 8;
  const std::size_t rows = static_cast<std::size_t>(x.shape[0]);
  const std::size_t columns = static_cast<std::size_t>(x.shape[1]);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < columns; ++j)
      if (std::memcmp(x.bytes.data() + (i * columns + j) * item,
                      y.bytes.data() + (j * rows + i) * item, item) != 0)
        return false;
  return true;
}

}  // namespace

void mark_tied_sites(Adapter& adapter) {
  if (!ensures_tying(adapter)) return;
  for (const LoraModule& source : adapter.modules) {
    if (source.kind != LayerKind::embedding) continue;
    for (LoraModule& head : adapter.modules)
      if (head.kind == LayerKind::linear && is_transpose(head.a, source.b) &&
          is_transpose(head.b, source.a))
        head.tied_to = source.module_path;
  }
}

bool is_tied_copy(const Adapter& adapter, const ParsedKey& key, const Tensor& tensor) {
  return key.role == KeyRole::saved && key.parameter == "weight" && ensures_tying(adapter) &&
         std::any_of(
             adapter.replacements.begin(), adapter.replacements.end(),
             [&](const auto& replacement) { return has_equal_bytes(replacement.second, tensor); });
}

}  // namespace lora
