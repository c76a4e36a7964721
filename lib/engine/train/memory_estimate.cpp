#include "engine/train/memory_estimate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdio>

#include "engine/base_weight.h"
#include "engine/gemm.h"
#include "engine/generic/generic_model.h"
#include "engine/kernels/quantised.h"
#include "engine/llama/llama_model.h"
#include "engine/quantised_base.h"
#include "engine/train/machine_memory.h"
#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kFloat = 4;
constexpr const char* kSmaller =
    "lower --batch-size (with more --grad-accum) or --seq-len, or use --checkpointing layer or "
    "--base-dtype nf4";

// Values of one position in the widths of a transformer.
struct Widths {
  std::int64_t layers = 0, hidden = 0, queries = 0, keys = 0, inner = 0, vocabulary = 0;
};

std::optional<Widths> widths_of(const ModelConfig& config) {
  if (config.decoder) {
    const DecoderConfig& c = *config.decoder;
    std::int64_t inner = c.intermediate_size;
    if (c.experts)
      inner = std::max(inner, c.experts->per_token * c.experts->intermediate_size +
                                  c.experts->shared_intermediate_size);
    return Widths{c.num_layers, c.hidden_size, c.query_width(), c.key_width(), inner, c.vocab_size};
  }
  const auto plain = [](const auto& c) {
    return Widths{c.num_layers,  c.hidden_size,       c.hidden_size,
                  c.hidden_size, c.intermediate_size, c.vocab_size};
  };
  if (config.gpt2) return plain(*config.gpt2);
  if (config.bert) return plain(*config.bert);
  if (config.gpt_neox) return plain(*config.gpt_neox);
  return std::nullopt;
}

std::int64_t quantised_bytes(std::int64_t count, BaseDtype dtype) {
  return dtype == BaseDtype::nf4 ? count / 2 + count / kNf4Block * kFloat
                                 : count + count / kInt8Block * kFloat;
}

bool is_mapped(const Checkpoint& base, const Tensor& tensor) {
  return std::any_of(base.mappings.begin(), base.mappings.end(), [&](const auto& mapping) {
    const auto bytes = mapping->bytes();
    return tensor.bytes.data() >= bytes.data() && tensor.bytes.data() < bytes.data() + bytes.size();
  });
}

void add_base(MemoryEstimate& estimate, const ModelOptions& model, bool is_generic,
              bool layer_checkpointing, std::int64_t layers) {
  std::int64_t widened = 0;
  for (const auto& [name, tensor] : model.base->tensors) {
    if (!is_float(tensor.dtype)) continue;
    const std::int64_t count = tensor.numel();
    const bool is_matrix = tensor.shape.size() > 1;
    if (is_matrix && model.base_dtype != BaseDtype::native && is_layer_matrix(name)) {
      estimate.allocated_base += quantised_bytes(count, model.base_dtype);
      continue;
    }
    const bool is_half = matrix_type(tensor.dtype, model.compute) == at::kBFloat16;
    const bool is_view = tensor.dtype == (is_half ? DType::bf16 : DType::f32);
    const std::int64_t bytes = count * (is_half && is_matrix ? 2 : kFloat);
    if (!is_view)
      estimate.allocated_base += bytes;
    else if (is_mapped(*model.base, tensor))
      estimate.mapped_base += bytes;
    if (is_matrix && is_half && is_layer_matrix(name)) widened += count * kFloat;
  }
  // LibTorch's graph keeps the f32 copies that products of halves are made with.
  if (is_generic)
    estimate.activations +=
        layer_checkpointing ? widened / std::max<std::int64_t>(1, layers) : widened;
}

// Bytes that a position keeps for the backward pass of one layer, without those of adapters, and
// those of the work space that all layers share.
struct PerPosition {
  std::int64_t kept = 0, shared = 0;
};

// The residual stream is f32, what lies between products has `element` bytes.
PerPosition fast_step(const Widths& w, std::int64_t element) {
  return {
      2 * w.hidden * kFloat + (2 * w.queries + 2 * w.keys + 2 * w.inner) * element,
      4 * w.hidden * kFloat + (2 * w.hidden + 3 * w.queries + 2 * w.keys + 2 * w.inner) * element};
}

PerPosition differentiated(const Widths& w) {
  return {(8 * w.hidden + 5 * w.queries + 4 * w.keys + 4 * w.inner) * kFloat,
          (4 * w.hidden + 2 * w.queries + 3 * w.inner) * kFloat};
}

// Of an activation in the fast step.
std::int64_t element_bytes(const ModelOptions& model, std::int64_t positions) {
  if (model.base_dtype != BaseDtype::native) return kFloat;
  const auto is_half = [&](const auto& entry) {
    const auto& [name, tensor] = entry;
    return tensor.shape.size() > 1 && is_layer_matrix(name) && is_float(tensor.dtype) &&
           matrix_type(tensor.dtype, model.compute) == at::kBFloat16;
  };
  const auto& tensors = model.base->tensors;
  const bool has_half = std::any_of(tensors.begin(), tensors.end(), is_half);
  return has_half && is_bf16_product(at::empty({0}, at::kBFloat16), positions) ? 2 : kFloat;
}

}  // namespace

MemoryEstimate estimate_memory(const ModelOptions& model, std::int64_t rows, std::int64_t length,
                               bool layer_checkpointing) {
  MemoryEstimate estimate;
  std::int64_t ranks = 0, adapted = 0, trainable = 0;
  for (const Adapter* adapter : model.adapters) {
    for (const auto& [key, tensor] : adapter->tensors) trainable += tensor.numel();
    for (const LoraModule& module : adapter->modules) {
      ranks += module.rank;
      if (module.magnitude) adapted += 3 * module.b.shape[0];
      if (adapter->config.dropout > 0) adapted += 2 * module.a.shape[1];
    }
  }
  // Values, gradients, two averages, and the copy that a checkpoint is written from.
  estimate.adapter = 5 * trainable * kFloat;

  if (!model.base->config) return estimate;
  const ModelConfig& config = *model.base->config;
  const bool is_generic =
      !config.decoder || !has_fast_step(*config.decoder) || needs_generic(model);
  const std::optional<Widths> widths = widths_of(config);
  add_base(estimate, model, is_generic && widths, layer_checkpointing, widths ? widths->layers : 1);
  if (!widths) return estimate;

  const std::int64_t positions = rows * length;
  const PerPosition position =
      is_generic ? differentiated(*widths) : fast_step(*widths, element_bytes(model, positions));
  const std::int64_t adapters = (ranks + adapted) * kFloat;
  const std::int64_t kept = layer_checkpointing
                                ? widths->layers * widths->hidden * kFloat + position.kept +
                                      adapters / std::max<std::int64_t>(1, widths->layers)
                                : widths->layers * position.kept + adapters;
  // Logits exist a few hundred positions at a time.
  const std::int64_t chunk = is_generic ? 3 * std::min<std::int64_t>(512, positions)
                                        : std::min<std::int64_t>(256, positions);
  constexpr std::int64_t kTile = std::int64_t{4} << 20;
  estimate.activations +=
      positions * (kept + position.shared) + kFloat * chunk * widths->vocabulary + kTile;
  return estimate;
}

namespace {

std::string size_text(std::int64_t bytes) {
  char text[32];
  const double value = static_cast<double>(std::max<std::int64_t>(0, bytes));
  if (value < 1e9)
    std::snprintf(text, sizeof text, "%.0f MB", value / 1e6);
  else
    std::snprintf(text, sizeof text, "%.1f GB", value / 1e9);
  return text;
}

}  // namespace

AvailableMemory find_available_memory() { return {available_memory(), available_addresses()}; }

MemoryVerdict compare_memory(const MemoryEstimate& estimate, const AvailableMemory& available) {
  constexpr double kDoubt = 1.2;
  const auto ratio = [](std::int64_t needed, const std::optional<std::int64_t>& space) {
    if (!space) return 0.0;
    return static_cast<double>(needed) / static_cast<double>(std::max<std::int64_t>(1, *space));
  };
  const double memory = ratio(estimate.total(), available.bytes);
  const double addresses = ratio(estimate.allocated(), available.addresses);
  const double worst = std::max(memory, addresses);
  MemoryVerdict verdict;
  if (worst > 1)
    verdict.kind = worst > kDoubt ? MemoryVerdict::Kind::too_large : MemoryVerdict::Kind::tight;
  const bool is_memory = memory >= addresses;
  const auto& space = is_memory ? available.bytes : available.addresses;
  verdict.text = "about " + size_text(is_memory ? estimate.total() : estimate.allocated()) +
                 (is_memory ? " of memory" : " of address space") + " (base " +
                 size_text(estimate.allocated_base + (is_memory ? estimate.mapped_base : 0)) +
                 ", a micro-batch " + size_text(estimate.activations) + ", adapter and optimizer " +
                 size_text(estimate.adapter) + ")";
  if (space) verdict.text += ", and " + size_text(*space) + " are available";
  return verdict;
}

std::string require_memory(const MemoryVerdict& verdict, bool any_memory) {
  if (verdict.kind == MemoryVerdict::Kind::fits) return {};
  const std::string text = "training needs " + verdict.text;
  if (verdict.kind == MemoryVerdict::Kind::too_large && !any_memory)
    throw Error(ErrorKind::resources, text)
        .with_hint(std::string(kSmaller) + "; --any-memory begins all the same");
  return text + "; it may run out of memory: " + kSmaller;
}

Error out_of_memory(const MemoryVerdict& verdict, const std::string& detail) {
  return Error(ErrorKind::resources, detail + "; before it began, training needed " + verdict.text)
      .with_hint(kSmaller);
}

}  // namespace lora::engine
