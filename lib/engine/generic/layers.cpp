#include "engine/generic/layers.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/where.h>

#include <span>

#include "engine/generic/lora_linear.h"
#include "engine/generic/quantised_linear.h"
#include "engine/kernels/kernels.h"

namespace lora::engine {
namespace {

at::Tensor wide(const at::Tensor& tensor) { return tensor.to(at::kFloat); }

// The weight as [out, in], whatever the layout of the layer; as it is stored, and in f32.
at::Tensor stored_weight(const LoraSite& site, const Pass& pass) {
  const at::Tensor& weight = site.weight->value(pass.with_adapters);
  return site.kind == LayerKind::linear ? weight : weight.t();
}
at::Tensor oriented_weight(const LoraSite& site, const Pass& pass) {
  if (const QuantisedMatrix* quantised = site.weight->quantised_value(pass.with_adapters))
    return quantised->widened();
  return wide(stored_weight(site, pass));
}

at::Tensor base_product(const LoraSite& site, const at::Tensor& x, const at::Tensor& bias,
                        const Pass& pass) {
  const QuantisedMatrix* quantised = site.weight->quantised_value(pass.with_adapters);
  if (quantised == nullptr) return at::linear(x, oriented_weight(site, pass), bias);
  const at::Tensor y = quantised_linear(x, *quantised);
  return bias.defined() ? y.add(bias) : y;
}

at::Tensor masked(const at::Tensor& x, double rate, std::uint64_t stream, const Pass& pass) {
  at::Tensor mask = at::ones(x.sizes(), at::kFloat);
  apply_dropout(mask.const_data_ptr<float>(), mask.numel(), rate,
                dropout_key(stream, *pass.dropout), mask.mutable_data_ptr<float>());
  return x.mul(mask);
}

at::Tensor norm_of(const LoraSite& site, const LoraBranch& branch) {
  return branch.norm.defined() ? branch.norm : dora_norm(site, branch);
}

// What DoRA adds to y, the layer's output so far: (m/|V| - 1) W x + (m/|V|) scaling B A x. PEFT
// takes W x out of y while there is no dropout, so that an earlier adapter's part is scaled too.
at::Tensor dora_part(const LoraSite& site, const LoraBranch& branch, const at::Tensor& x,
                     const at::Tensor& y, const Pass& pass) {
  const at::Tensor scale = branch.magnitude.div(norm_of(site, branch));
  const bool drops = is_dropping(branch, pass);
  const at::Tensor input = drops ? masked(x, branch.dropout, branch.stream, pass) : x;
  at::Tensor base = y;
  if (drops)
    base = base_product(site, input, at::Tensor(), pass);
  else if (site.bias != nullptr)
    base = y.sub(site.bias->value(true));
  const at::Tensor low_rank = at::linear(at::linear(input, branch.a), branch.b);
  return scale.sub(1).mul(base).add(scale.mul(low_rank).mul(branch.scaling));
}

at::Tensor plain_part(const LoraBranch& branch, const at::Tensor& x, const Pass& pass) {
  const at::Tensor input =
      is_dropping(branch, pass) ? masked(x, branch.dropout, branch.stream, pass) : x;
  return at::linear(at::linear(input, branch.a), branch.b, branch.bias).mul(branch.scaling);
}

// Whether layer and branch are what lora_linear computes.
bool is_one_node(const LoraSite& site, const LoraBranch& branch, const Pass& pass) {
  return !branch.magnitude.defined() && !branch.bias.defined() &&
         !site.weight->value(pass.with_adapters).requires_grad();
}

at::Tensor lookup(const at::Tensor& table, const at::Tensor& ids,
                  const std::optional<std::int64_t>& padding) {
  return at::embedding(table, ids, padding.value_or(-1));
}

}  // namespace

at::Tensor dora_squares(const LoraSite& site) {
  const at::NoGradGuard guard;
  const at::Tensor norm =
      at::linalg_vector_norm(oriented_weight(site, {true, nullptr}), 2, {1}, false, at::kDouble);
  return norm.square();
}

// |W + sBA|^2 is |W|^2 + 2s B.(W A^T) + s^2 B.(B A A^T) in each row: one product with the weight
// and no matrix of its size. Only that product is rounded to f32, to a part in 1e7 of what it adds.
at::Tensor dora_norm(const LoraSite& site, const LoraBranch& branch) {
  const at::NoGradGuard guard;
  const at::Tensor weight = oriented_weight(site, {true, nullptr});
  const at::Tensor cross = at::mm(weight, branch.a.t()).to(at::kDouble);
  const at::Tensor a = branch.a.to(at::kDouble);
  const at::Tensor b = branch.b.to(at::kDouble);
  const double s = branch.scaling;
  const at::Tensor added = at::mm(b, at::mm(a, a.t())).mul(s).add(cross, 2).mul(b).sum(1).mul(s);
  const at::Tensor own =
      branch.weight_squares.defined() ? branch.weight_squares : dora_squares(site);
  return own.add(added).clamp_min(0).sqrt().to(at::kFloat);
}

at::Tensor apply_dense(const LoraSite& site, const at::Tensor& x, const Pass& pass) {
  const auto& patches = site.weight->patches;
  const bool is_patched = pass.with_adapters && !patches.empty();
  // PEFT's layer for a head with trainable tokens leaves the bias out.
  const at::Tensor bias =
      site.bias != nullptr && !is_patched ? site.bias->value(pass.with_adapters) : at::Tensor();
  std::span<const LoraBranch> branches;
  if (pass.with_adapters) branches = site.branches;
  at::Tensor y;
  if (!branches.empty() && !is_patched && site.weight->quantised_value(true) == nullptr &&
      is_one_node(site, branches[0], pass)) {
    y = lora_linear(x, stored_weight(site, pass), branches[0], pass);
    if (bias.defined()) y = y.add(bias);
    branches = branches.subspan(1);
  } else {
    y = base_product(site, x, bias, pass);
  }
  if (!pass.with_adapters) return y;
  for (const auto& patch : patches)
    y = at::index_copy(y, -1, patch->indices, at::linear(x, patch->rows));
  for (const LoraBranch& branch : branches)
    y = y.add(branch.magnitude.defined() ? dora_part(site, branch, x, y, pass)
                                         : plain_part(branch, x, pass));
  return y;
}

at::Tensor apply_table(const Table& table, const at::Tensor& ids, const Pass& pass) {
  const LoraSite& site = *table.site;
  at::Tensor y = wide(lookup(site.weight->value(pass.with_adapters), ids, table.padding));
  if (!pass.with_adapters) return y;
  for (const auto& patch : site.weight->patches) {
    const at::Tensor slots = patch->slots.index_select(0, ids.reshape({-1})).view(ids.sizes());
    const at::Tensor rows = at::embedding(patch->rows, slots.clamp_min(0));
    at::Tensor is_patched = slots.ge(0);
    // As in torch's embedding, a padding token is looked up but never trained.
    if (table.padding) {
      const at::Tensor is_padding = ids.eq(*table.padding).logical_and(is_patched);
      y = at::where(is_padding.unsqueeze(-1), rows.detach(), y);
      is_patched = is_patched.logical_and(is_padding.logical_not());
    }
    y = at::where(is_patched.unsqueeze(-1), rows, y);
  }
  for (const LoraBranch& branch : site.branches) {
    const at::Tensor low_rank =
        at::linear(lookup(branch.a.t(), ids, table.padding), branch.b).mul(branch.scaling);
    if (!branch.magnitude.defined()) {
      y = y.add(low_rank);
      continue;
    }
    const at::Tensor scale = branch.magnitude.div(norm_of(site, branch));
    y = scale.mul(y).add(scale.mul(low_rank));
  }
  return y;
}

at::Tensor apply_layer_norm(const Norm& norm, const at::Tensor& x, const Pass& pass) {
  return at::layer_norm(x, {x.size(-1)}, norm.weight->value(pass.with_adapters),
                        norm.bias->value(pass.with_adapters), norm.eps);
}

at::Tensor apply_rms_norm(const Norm& norm, const at::Tensor& x, const Pass& pass) {
  const at::Tensor scale = at::rsqrt(x.square().mean(-1, true).add(norm.eps));
  const at::Tensor& weight = norm.weight->value(pass.with_adapters);
  return x.mul(scale).mul(norm.adds_one ? weight.add(1) : weight);
}

at::Tensor drop(const at::Tensor& x, double rate, std::uint64_t stream, const Pass& pass) {
  return pass.dropout == nullptr || rate <= 0 ? x : masked(x, rate, stream, pass);
}

}  // namespace lora::engine
