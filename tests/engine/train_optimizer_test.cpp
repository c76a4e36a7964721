#include <ATen/Parallel.h>

#include "engine/train/optimizer.h"
#include "support/torch_testing.h"

using namespace lora::engine;

namespace {

void require_close(const at::Tensor& actual, const std::vector<double>& expected,
                   double tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO("element " << i);
    REQUIRE(actual[static_cast<std::int64_t>(i)].item<double>() ==
            Approx(expected[i]).margin(tolerance));
  }
}

}  // namespace

// Recorded from torch.optim.AdamW of torch 2.13.0: lr 0.01, betas (0.9, 0.95), weight decay 0.1.
TEST_CASE("AdamW follows torch.optim.AdamW step by step") {
  const std::vector<std::vector<double>> recorded = {
      {0.4895000159740448, -1.2387499809265137, 1.9880000352859497, -0.009999999776482582,
       3.506500005722046},
      {0.4794306457042694, -1.2275112867355347, 1.9772647619247437, -0.019382931292057037,
       3.512993574142456},
      {0.4695061147212982, -1.2162837982177734, 1.966806411743164, -0.02824128419160843,
       3.5194807052612305},
      {0.4596281349658966, -1.20506751537323, 1.9564152956008911, -0.03664544224739075,
       3.52596116065979},
      {0.44975197315216064, -1.1938624382019043, 1.946014642715454, -0.044648557901382446,
       3.532435178756714}};
  at::Tensor values = at::tensor({0.5F, -1.25F, 2.0F, 0.0F, 3.5F});
  AdamW optimizer(values, {0.9, 0.95, 1e-8, 0.1});
  for (int t = 1; t <= 5; ++t) {
    const auto f = static_cast<float>(t);
    at::Tensor gradients = at::tensor({0.1F * f, -0.2F, 0.03F * f * f, 1.0F / f, -0.5F});
    optimizer.update(values, gradients, 0.01, t);
    INFO("step " << t);
    require_close(values, recorded[static_cast<std::size_t>(t - 1)], 2e-7);
  }
}

// Recorded from torch.nn.utils.clip_grad_norm_ over two tensors.
TEST_CASE("clipping scales as clip_grad_norm_ and reports the norm before") {
  at::Tensor gradients = at::tensor({3.0F, -4.0F, 12.0F, 1.0F, 2.0F});
  REQUIRE(clip_by_global_norm(gradients, 1.0) == Approx(13.190905570983887));
  require_close(gradients,
                {0.22742938995361328, -0.30323919653892517, 0.9097175598144531, 0.07580979913473129,
                 0.15161959826946259},
                1e-7);
}

TEST_CASE("gradients within the norm stay, and a norm of 0 turns clipping off") {
  at::Tensor small = at::tensor({0.3F, -0.4F});
  REQUIRE(clip_by_global_norm(small, 1.0) == Approx(0.5));
  REQUIRE(small[0].item<float>() == 0.3F);
  at::Tensor large = at::tensor({30.0F, -40.0F});
  REQUIRE(clip_by_global_norm(large, 0) == Approx(50));
  REQUIRE(large[1].item<float>() == -40.0F);
}

TEST_CASE("the global norm is the same bits on any number of threads") {
  const at::Tensor values = at::arange(300000, at::kFloat).sin();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double alone = global_norm(values);
  at::set_num_threads(3);
  const double together = global_norm(values);
  at::set_num_threads(threads);
  REQUIRE(alone == together);
  REQUIRE(alone == Approx(values.to(at::kDouble).norm().item<double>()).epsilon(1e-12));
}
