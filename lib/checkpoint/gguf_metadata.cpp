#include "checkpoint/gguf_metadata.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace lora {
namespace {

constexpr std::int64_t kMostLayers = 1 << 16;

// Metadata keeps F32; the configuration it came from had the shortest decimal that rounds to it.
double as_configured(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), narrow).ptr;
  double shortest = value;
  std::from_chars(text.data(), end, shortest);
  return shortest;
}

// Factors on the rotary frequencies stand in the file without the numbers that they come from. The
// Llama 3 models have these numbers but for the factor, which the slowest frequencies show.
std::optional<JsonObject> rope_of_factors(const GgufFile& file, double theta,
                                          const GgufSizes& sizes) {
  const GgufTensor* tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) return std::nullopt;
  constexpr double kLow = 1, kHigh = 4, kOriginal = 8192;
  constexpr double kPi = 3.14159265358979323846;
  const std::int64_t pairs = sizes.head / 2;
  const auto refuse = [&] {
    return gguf_fault(
               file, ErrorKind::unsupported,
               "its rotary frequencies are scaled by factors (rope_freqs.weight) that no known "
               "configuration gives")
        .in_tensor(tensor->name);
  };
  if (tensor->format->type != GgufType::f32 || tensor->shape != std::vector{pairs}) throw refuse();
  const std::vector<float> factors =
      Tensor{DType::f32, tensor->shape, tensor->bytes, file.mapping}.to_f32();
  const double factor = std::round(static_cast<double>(factors.back()));
  if (!(factor >= 1) || factor > 1e6) throw refuse();
  for (std::int64_t i = 0; i < pairs; ++i) {
    const double wave =
        2 * kPi * std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(sizes.head));
    double expected = factor;
    if (wave < kOriginal / kHigh) {
      expected = 1;
    } else if (wave <= kOriginal / kLow) {
      const double smooth = (kOriginal / wave - kLow) / (kHigh - kLow);
      expected = 1 / ((1 - smooth) / factor + smooth);
    }
    const double found = factors[static_cast<std::size_t>(i)];
    if (!(std::fabs(found - expected) <= 1e-4 * expected)) throw refuse();
  }
  return JsonObject{{"factor", factor},
                    {"high_freq_factor", kHigh},
                    {"low_freq_factor", kLow},
                    {"original_max_position_embeddings", static_cast<std::int64_t>(kOriginal)},
                    {"rope_theta", theta},
                    {"rope_type", "llama3"}};
}

}  // namespace

Error gguf_fault(const GgufFile& file, ErrorKind kind, const std::string& reason) {
  return Error(kind, "cannot import GGUF model " + file.path.string() + ": " + reason)
      .in_file(file.path.string());
}

const GgufTensor& required_tensor(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr)
    throw gguf_fault(file, ErrorKind::malformed, "it lacks tensor " + name).in_tensor(name);
  return *tensor;
}

std::int64_t GgufMetadata::extent(const std::string& key,
                                  std::optional<std::int64_t> fallback) const {
  const auto value = file_.integer(prefix_ + key);
  if (!value && !fallback)
    throw gguf_fault(file_, ErrorKind::malformed, "its metadata lacks " + prefix_ + key);
  const std::int64_t extent = value.value_or(fallback.value_or(0));
  if (extent < 1 || extent > std::int64_t{1} << 31)
    throw gguf_fault(file_, ErrorKind::malformed,
                     prefix_ + key + " is " + std::to_string(extent) + ", expected 1 or more");
  return extent;
}

double GgufMetadata::positive(const std::string& key, double fallback) const {
  const double value = as_configured(file_.number(prefix_ + key).value_or(fallback));
  if (!(value > 0) || !std::isfinite(value))
    throw gguf_fault(file_, ErrorKind::malformed,
                     prefix_ + key + " is " + dump_json(value) + ", expected a positive number");
  return value;
}

GgufSizes gguf_sizes(const GgufFile& file, const GgufMetadata& metadata) {
  GgufSizes sizes{};
  sizes.layers = metadata.extent("block_count");
  if (sizes.layers > kMostLayers)
    throw gguf_fault(file, ErrorKind::malformed,
                     "it names " + std::to_string(sizes.layers) + " layers, expected at most " +
                         std::to_string(kMostLayers));
  sizes.width = metadata.extent("embedding_length");
  sizes.inner =
      metadata.extent("feed_forward_length", metadata.integer("expert_feed_forward_length"));
  sizes.heads = metadata.extent("attention.head_count");
  sizes.kv_heads = metadata.extent("attention.head_count_kv", sizes.heads);
  sizes.positions = metadata.extent("context_length");
  sizes.head =
      metadata.extent("attention.key_length", std::max<std::int64_t>(1, sizes.width / sizes.heads));
  const GgufTensor& words = required_tensor(file, "token_embd.weight");
  if (words.shape.size() != 2)
    throw gguf_fault(file, ErrorKind::malformed,
                     "token_embd.weight has the shape " + shape_to_string(words.shape) +
                         ", expected two extents")
        .in_tensor(words.name);
  sizes.vocabulary = words.shape[0];
  sizes.rotated = metadata.extent("rope.dimension_count", sizes.head);
  return sizes;
}

JsonObject gguf_rope(const GgufFile& file, const GgufMetadata& metadata, const GgufSizes& sizes) {
  const double theta = metadata.positive("rope.freq_base", 10000);
  if (auto scaled = rope_of_factors(file, theta, sizes)) return std::move(*scaled);
  const std::string type(metadata.text("rope.scaling.type").value_or("none"));
  if (type == "linear")
    return {{"factor", metadata.positive("rope.scaling.factor", 1)},
            {"rope_theta", theta},
            {"rope_type", "linear"}};
  if (type != "none")
    throw gguf_fault(
        file, ErrorKind::unsupported,
        "its rotary scaling is \"" + type + "\", expected none, linear or that of Llama 3");
  return {{"rope_theta", theta}, {"rope_type", "default"}};
}

}  // namespace lora
