#include <algorithm>
#include <array>
#include <numeric>

#include "lora/adapter/manifest.h"
#include "lora/base/parallel.h"
#include "lora/base/tensor_digest.h"

namespace lora {
namespace {

// A fixed block keeps a saved embedding from being widened as a whole.
constexpr std::size_t kBlock = 4096;

double mean_of(const Tensor& tensor) {
  if (!is_float(tensor.dtype) || tensor.bytes.empty()) return 0;
  const std::size_t width = bits_of(tensor.dtype) / 8;
  const std::size_t count = tensor.bytes.size() / width;
  std::array<double, kBlock> values;
  double sum = 0;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = std::min(kBlock, count - begin);
    const std::span<double> block(values.data(), size);
    widen(tensor.dtype, tensor.bytes.data() + begin * width, block);
    sum = std::accumulate(block.begin(), block.end(), sum);
  }
  return sum / static_cast<double>(count);
}

}  // namespace

TensorRecord record_tensor(std::string_view peft_key, const Tensor& tensor) {
  return {std::string(to_string(tensor.dtype)), tensor.shape, tensor_digest(peft_key, tensor),
          mean_of(tensor)};
}

Manifest make_manifest(const Adapter& adapter, int threads) {
  Manifest manifest;
  for (const LoraModule& module : adapter.modules)
    manifest.scaling[module.module_path] = module.scaling;

  std::vector<const TensorMap::value_type*> entries;
  for (const auto& entry : adapter.tensors) entries.push_back(&entry);
  std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
    return a->second.bytes.size() > b->second.bytes.size();
  });
  std::vector<TensorRecord> records(entries.size());
  parallel_for(entries.size(), threads, [&](std::size_t i) {
    records[i] = record_tensor(entries[i]->first, entries[i]->second);
  });
  for (std::size_t i = 0; i < entries.size(); ++i)
    manifest.tensors[entries[i]->first] = std::move(records[i]);
  return manifest;
}

}  // namespace lora
