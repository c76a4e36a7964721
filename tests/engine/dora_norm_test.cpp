#include "engine/train_fixtures.h"
//
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "engine/bridge.h"
#include "engine/generic/layers.h"

using namespace lora;
using namespace lora::engine;
using namespace lora::testing;

namespace {

at::Tensor drawn(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return view_of(random_tensor(std::move(shape), seed)).clone();
}

}  // namespace

TEST_CASE("DoRA's norm is that of the whole matrix, in every layout, to the last bits of f32") {
  for (const LayerKind kind : {LayerKind::linear, LayerKind::conv1d, LayerKind::embedding}) {
    const bool is_linear = kind == LayerKind::linear;
    Parameter weight;
    weight.shape =
        is_linear ? std::vector<std::int64_t>{40, 70} : std::vector<std::int64_t>{70, 40};
    weight.base = drawn(weight.shape, 1);
    const LoraSite site{"layer", kind, &weight, nullptr, {}};
    LoraBranch branch;
    branch.a = drawn({6, 70}, 2);
    branch.scaling = 1.7;
    for (const double size : {0.0, 1.0, 30.0}) {
      branch.b = drawn({40, 6}, 3).mul(size);
      const at::Tensor update = at::mm(branch.b.to(at::kDouble), branch.a.to(at::kDouble));
      const at::Tensor whole =
          (is_linear ? weight.base : weight.base.t()).to(at::kDouble).add(update, branch.scaling);
      const at::Tensor exact = at::linalg_vector_norm(whole, 2, {1});
      const at::Tensor error = dora_norm(site, branch).to(at::kDouble).sub(exact).div(exact).abs();
      REQUIRE(error.max().item<double>() < 3e-7);
      branch.weight_squares = dora_squares(site);
      const at::Tensor kept = dora_norm(site, branch);
      branch.weight_squares = at::Tensor();
      REQUIRE(kept.equal(dora_norm(site, branch)));
    }
  }
}

TEST_CASE("an output without weights has the norm of its update, or none") {
  Parameter weight;
  weight.shape = {2, 5};
  weight.base = at::zeros({2, 5});
  const LoraSite site{"layer", LayerKind::linear, &weight, nullptr, {}};
  LoraBranch branch;
  branch.a = drawn({1, 5}, 2);
  branch.b = at::zeros({2, 1});
  branch.b[1][0] = 2.0F;
  const at::Tensor norm = dora_norm(site, branch);
  REQUIRE(norm[0].item<float>() == 0);
  REQUIRE(norm[1].item<float>() == Approx(2 * branch.a.norm().item<float>()));
}
