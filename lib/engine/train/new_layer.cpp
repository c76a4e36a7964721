#include "engine/train/new_layer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "engine/base_change.h"
#include "engine/base_weight.h"
#include "engine/bridge.h"
#include "engine/quantised_base.h"
#include "engine/quantised_matrix.h"
#include "lora/base/error.h"
#include "lora/base/random.h"

namespace lora::engine {
namespace {

constexpr std::string_view kCountedPissa = "pissa_niter_";

using Draw = std::function<double(const CounterRandom&, std::uint64_t)>;

at::Tensor drawn(std::int64_t rows, std::int64_t columns, const std::string& stream,
                 std::uint64_t seed, const Draw& draw) {
  const CounterRandom random(seed, stream_of(stream));
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  float* values = result.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel(); ++i)
    values[i] = static_cast<float>(draw(random, static_cast<std::uint64_t>(i)));
  return result;
}

// Kaiming uniform with a = sqrt(5), as torch.nn.Linear: the bound is 1/sqrt(fan_in).
Draw uniform_within(double bound) {
  return [bound](const CounterRandom& random, std::uint64_t i) {
    return (2 * random.uniform(i) - 1) * bound;
  };
}

Draw normal_with(double deviation) {
  return [deviation](const CounterRandom& random, std::uint64_t i) {
    return random.normal(i) * deviation;
  };
}

struct Keys {
  std::string a, b;
};

// Rows of an orthogonal matrix, the even ones for A and the odd ones for B, mixed at random: both
// factors differ from zero and their product does not.
FactorPair orthogonal_factors(const ModuleInfo& module, std::int64_t rank, const Keys& keys,
                              std::uint64_t seed) {
  if (rank % 2 != 0)
    throw Error(ErrorKind::usage, "the rank of " + module.module_path + " is " +
                                      std::to_string(rank) +
                                      ", expected an even one with --init orthogonal");
  const Draw normal = normal_with(1);
  const at::Tensor q = std::get<0>(
      at::linalg_qr(drawn(rank, rank, module.module_path + ".orthogonal", seed, normal)));
  const at::Tensor mix_a = drawn(module.in_features, rank / 2, keys.a, seed, normal);
  const at::Tensor mix_b = drawn(module.out_features, rank / 2, keys.b, seed, normal);
  return {at::mm(mix_a, q.slice(0, 0, rank, 2)).t().div(10).contiguous(),
          at::mm(mix_b, q.slice(0, 1, rank, 2)).div(10)};
}

FactorPair drawn_factors(const ModuleInfo& module, std::int64_t rank, const Keys& keys,
                         const NewLayers& settings) {
  const std::int64_t in = module.in_features;
  const std::int64_t out = module.out_features;
  const std::uint64_t seed = settings.seed;
  // PEFT: A zero and B normal for embeddings.
  if (module.kind == LayerKind::embedding)
    return {at::zeros({rank, in}), drawn(out, rank, keys.b, seed, normal_with(1))};
  if (settings.init == "zero") {
    const double bound = 1 / std::sqrt(static_cast<double>(rank));
    return {at::zeros({rank, in}), drawn(out, rank, keys.b, seed, uniform_within(bound))};
  }
  const Draw draw = settings.init == "gaussian"
                        ? normal_with(1 / static_cast<double>(rank))
                        : uniform_within(1 / std::sqrt(static_cast<double>(in)));
  return {drawn(rank, in, keys.a, seed, draw), at::zeros({out, rank})};
}

// The weight as [out, in] with the first factors added, without those that were taken out of it.
at::Tensor first_norm(const at::Tensor& weight, const ModuleInfo& module, const FactorPair& factors,
                      double scaling, bool is_sum_of_base) {
  at::Tensor oriented = weight.to(at::kFloat);
  if (module.kind != LayerKind::linear) oriented = oriented.t();
  if (!is_sum_of_base) oriented = oriented.add(at::mm(factors.b.mul(scaling), factors.a));
  return at::linalg_vector_norm(oriented, 2, {1}, false, at::kDouble).to(at::kFloat);
}

// The weight as it will be multiplied with, in its own layout.
at::Tensor quantised_values(const NewLayers& settings, const ModuleInfo& module) {
  const std::string name = module.module_path + ".weight";
  const bool is_transposed = module.kind == LayerKind::conv1d;
  const QuantisedMatrix matrix(
      settings.base, name, stored_weight(settings.base, module.module_path, "cannot train DoRA"),
      settings.base_dtype, is_transposed);
  return is_transposed ? matrix.widened().t() : matrix.widened();
}

void add_bias(TensorMap& tensors, const ModuleInfo& module) {
  if (module.kind == LayerKind::embedding)
    throw Error(ErrorKind::unsupported, "cannot train lora_bias on " + module.module_path +
                                            ": it is an embedding, expected linear layers");
  tensors[key_of(KeyRole::lora_b_bias, module.module_path)] =
      to_lora(at::zeros({module.out_features}));
}

void refuse_embedding(const ModuleInfo& module, const std::string& init) {
  if (module.kind == LayerKind::embedding && init != "default" && init != "gaussian" &&
      init != "zero")
    throw Error(ErrorKind::unsupported, "cannot start LoRA on " + module.module_path + " with " +
                                            init + ": it is an embedding, expected linear layers")
        .with_hint("leave it out of --target-modules, or use --init default");
}

}  // namespace

std::string key_of(KeyRole role, const std::string& module_path, const std::string& parameter) {
  ParsedKey key;
  key.role = role;
  key.module_path = module_path;
  key.parameter = parameter;
  return to_peft_key(key);
}

std::optional<Json> init_lora_weights_of(const std::string& init) {
  if (init == "default" || init == "zero") return Json(true);
  const bool is_counted =
      init.starts_with(kCountedPissa) && init.size() > kCountedPissa.size() &&
      init.size() <= kCountedPissa.size() + 6 &&
      init.find_first_not_of("0123456789", kCountedPissa.size()) == std::string::npos;
  if (is_counted || init == "gaussian" || init == "orthogonal" || init == "pissa" ||
      init == "olora")
    return Json(init);
  return std::nullopt;
}

void add_new_layer(TensorMap& tensors, const AdapterConfig& config, const ModuleInfo& module,
                   const NewLayers& settings) {
  const std::string& path = module.module_path;
  const std::int64_t rank = rank_of(config, path);
  if (rank < 1)
    throw Error(ErrorKind::usage,
                "the rank of " + path + " is " + std::to_string(rank) + ", expected at least 1");
  refuse_embedding(module, settings.init);
  const double scaling = scaling_of(config, path, rank);
  const bool is_embedding = module.kind == LayerKind::embedding;
  const Keys keys{key_of(is_embedding ? KeyRole::embedding_a : KeyRole::lora_a, path),
                  key_of(is_embedding ? KeyRole::embedding_b : KeyRole::lora_b, path)};
  const auto change = base_change_of(config);
  at::Tensor weight;
  if (change || config.use_dora)
    weight = base_weight(settings.base, path, settings.compute,
                         config.use_dora ? "cannot train DoRA" : "cannot take factors out");
  if (settings.base_dtype != BaseDtype::native && config.use_dora &&
      is_layer_matrix(path + ".weight"))
    weight = quantised_values(settings, module);
  FactorPair factors;
  if (change)
    factors = first_factors(*change, {path, module.kind, rank, scaling}, weight);
  else if (settings.init == "orthogonal")
    factors = orthogonal_factors(module, rank, keys, settings.seed);
  else
    factors = drawn_factors(module, rank, keys, settings);
  tensors[keys.a] = to_lora(factors.a);
  tensors[keys.b] = to_lora(factors.b);
  if (config.lora_bias) add_bias(tensors, module);
  if (config.use_dora)
    tensors[key_of(KeyRole::magnitude, path)] = to_lora(
        first_norm(weight, module, factors, scaling, change || settings.init != "orthogonal"));
}

}  // namespace lora::engine
