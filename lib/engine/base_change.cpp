#include "engine/base_change.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include "engine/base_weight.h"
#include "engine/bridge.h"
#include "lora/adapter/keys.h"
#include "lora/base/error.h"
#include "lora/base/random.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {
namespace {

constexpr std::string_view kCounted = "pissa_niter_";

Error refused(ErrorKind kind, const ChangedLayer& layer, const std::string& reason) {
  return Error(kind, "taking the first factors out of " + layer.module_path + ": " + reason);
}

at::Tensor orthonormal(const at::Tensor& columns) {
  return std::get<0>(at::linalg_qr(columns, "reduced"));
}

struct Svd {
  at::Tensor u, s, vh;  // [out, k], [k], [k, in]
};

Svd exact_svd(const at::Tensor& weight) {
  auto [u, s, vh] = at::linalg_svd(weight, /*full_matrices=*/false);
  return {u, s, vh};
}

// torch.svd_lowrank: subspace iteration from random columns, on the tall orientation. The columns
// depend on the layer's name alone, so that every load finds the factors that training began with.
Svd randomised_svd(const at::Tensor& weight, const ChangedLayer& layer, std::int64_t iterations) {
  const bool is_wide = weight.size(0) < weight.size(1);
  const at::Tensor tall = is_wide ? weight.t() : weight;
  const CounterRandom random(0, stream_of(layer.module_path + ".pissa"));
  at::Tensor start = at::empty({tall.size(1), layer.rank}, at::kFloat);
  float* values = start.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < start.numel(); ++i)
    values[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  at::Tensor basis = orthonormal(at::mm(tall, start));
  for (std::int64_t i = 0; i < iterations; ++i)
    basis = orthonormal(at::mm(tall, orthonormal(at::mm(tall.t(), basis))));
  const Svd small = exact_svd(at::mm(basis.t(), tall));
  const at::Tensor u = at::mm(basis, small.u);
  if (is_wide) return {small.vh.t(), small.s, u.t()};
  return {u, small.s, small.vh};
}

FactorPair pissa_factors(const BaseChange& change, const ChangedLayer& layer,
                         const at::Tensor& weight) {
  const at::Tensor oriented = layer.kind == LayerKind::conv1d ? weight.t() : weight;
  const Svd svd = change.method == BaseChange::Method::svd
                      ? exact_svd(oriented)
                      : randomised_svd(oriented, layer, change.iterations);
  const at::Tensor root = svd.s.narrow(0, 0, layer.rank).div(layer.scaling).sqrt();
  return {svd.vh.narrow(0, 0, layer.rank).mul(root.unsqueeze(1)).contiguous(),
          svd.u.narrow(1, 0, layer.rank).mul(root).contiguous()};
}

FactorPair olora_factors(const ChangedLayer& layer, const at::Tensor& weight) {
  const auto [q, r] = at::linalg_qr(weight, "reduced");
  return {r.narrow(0, 0, layer.rank).contiguous(), q.narrow(1, 0, layer.rank).contiguous()};
}

std::string key_of(KeyRole role, const std::string& module_path) {
  ParsedKey key;
  key.role = role;
  key.module_path = module_path;
  return to_peft_key(key);
}

}  // namespace

std::optional<BaseChange> base_change_of(const AdapterConfig& config) {
  const std::string init = base_changing_init(config);
  if (init.empty()) return std::nullopt;
  if (init == "pissa") return BaseChange{BaseChange::Method::svd, 0};
  if (init.starts_with(kCounted)) {
    std::int64_t iterations = 0;
    const char* end = init.data() + init.size();
    const auto parsed = std::from_chars(init.data() + kCounted.size(), end, iterations);
    if (parsed.ec == std::errc() && parsed.ptr == end && iterations >= 0)
      return BaseChange{BaseChange::Method::randomised_svd, iterations};
  }
  if (!init.starts_with("pissa") && !init.starts_with("corda") && init != "loftq" &&
      init != "lora_ga")
    return BaseChange{BaseChange::Method::qr, 0};
  throw Error(ErrorKind::unsupported,
              "init_lora_weights \"" + init +
                  "\" changed the base in a way that its weights alone do not tell, expected "
                  "pissa, pissa_niter_N, olora or a plain LoRA adapter")
      .with_hint("make it a plain LoRA: lora convert ADAPTER --init-adapter DIR -o PLAIN");
}

bool is_random_change(const AdapterConfig& config) {
  const auto change = base_change_of(config);
  return change && change->method == BaseChange::Method::randomised_svd;
}

FactorPair first_factors(const BaseChange& change, const ChangedLayer& layer,
                         const at::Tensor& weight) {
  const bool is_qr = change.method == BaseChange::Method::qr;
  if (layer.kind == LayerKind::embedding)
    throw refused(ErrorKind::unsupported, layer,
                  "it is an embedding, which PEFT gives no PiSSA or OLoRA factors");
  if (is_qr && layer.kind == LayerKind::conv1d)
    throw refused(ErrorKind::unsupported, layer,
                  "it is a Conv1D, whose weight PEFT's OLoRA takes for its transpose")
        .with_hint("use pissa, or leave the layer out");
  if (!is_qr && !(layer.scaling > 0))
    throw refused(ErrorKind::incompatible, layer,
                  "alpha / rank is " + std::to_string(layer.scaling) + ", expected more than 0");
  const std::int64_t most = std::min(weight.size(0), weight.size(1));
  if (layer.rank > most)
    throw refused(ErrorKind::incompatible, layer,
                  "the rank is " + std::to_string(layer.rank) + ", expected at most " +
                      std::to_string(most) + ", the smaller side of its weight");
  const at::Tensor wide = weight.to(at::kFloat);
  return is_qr ? olora_factors(layer, wide) : pissa_factors(change, layer, wide);
}

at::Tensor without_factors(const BaseChange& change, const ChangedLayer& layer,
                           const at::Tensor& weight, const FactorPair& factors) {
  const at::Tensor part = at::mm(factors.b.mul(layer.scaling), factors.a);
  const bool is_transposed =
      layer.kind == LayerKind::conv1d && change.method != BaseChange::Method::qr;
  return weight.to(at::kFloat).sub(is_transposed ? part.t() : part).to(weight.scalar_type());
}

TensorMap first_factors_of(const Adapter& adapter, const Checkpoint& base, Compute compute) {
  TensorMap tensors;
  const auto change = base_change_of(adapter.config);
  if (!change) return tensors;
  std::map<std::string, LayerKind> kinds;
  for (const ModuleInfo& module : list_modules(base)) kinds[module.module_path] = module.kind;
  for (const LoraModule& module : adapter.modules) {
    const std::string& path = module.module_path;
    const auto kind = kinds.find(path);
    const ChangedLayer layer{path, kind == kinds.end() ? module.kind : kind->second, module.rank,
                             module.scaling};
    const FactorPair factors = first_factors(
        *change, layer, base_weight(base, path, compute, "taking the first factors out"));
    tensors[key_of(KeyRole::lora_a, path)] = to_lora(factors.a);
    tensors[key_of(KeyRole::lora_b, path)] = to_lora(factors.b);
  }
  return tensors;
}

FactorPair known_factors(const TensorMap& first_factors, const std::string& module_path) {
  const auto a = first_factors.find(key_of(KeyRole::lora_a, module_path));
  const auto b = first_factors.find(key_of(KeyRole::lora_b, module_path));
  if (a == first_factors.end() || b == first_factors.end())
    throw Error(ErrorKind::malformed,
                "the first factors of " + module_path + " are missing, expected them recorded");
  return {convert(a->second, at::kFloat), convert(b->second, at::kFloat)};
}

}  // namespace lora::engine
