#include "support/torch_testing.h"
//
#include "engine/low_rank.h"

namespace lora {
namespace {

at::Tensor random(at::IntArrayRef sizes, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator);
}
at::Tensor f64(const at::Tensor& tensor) { return tensor.to(at::kDouble); }
double relative(const at::Tensor& found, const at::Tensor& expected) {
  return ((f64(found) - expected).norm() / expected.norm()).item<double>();
}

// Ranks beside and between the blocks that the kernels take, and one beyond what they are for.
const std::vector<std::int64_t> kRanks{1, 4, 5, 8, 13, 16, 20};

TEST_CASE("products with thin factors agree with f64 for f32 and bf16 activations", "[engine]") {
  engine::Workspace workspace;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const std::int64_t rank : kRanks)
      for (const std::int64_t width : {3, 16, 77}) {
        INFO(type << " rank " << rank << " width " << width);
        const at::Tensor x = random({11, width}, 1).to(type);
        const at::Tensor factor = random({rank, width}, 2);
        // The same factor as B holds it.
        const at::Tensor turned = factor.t().contiguous().t();
        const at::Tensor expected = f64(x).mm(f64(factor).t());
        for (const at::Tensor& f : {factor, turned}) {
          at::Tensor p = at::empty({11, rank});
          engine::low_rank_product(x, f, p, workspace);
          CHECK(relative(p, expected) < 1e-6);
          at::Tensor y = x.clone();
          engine::low_rank_add(p, f, 0.5, y, workspace);
          const at::Tensor sum = f64(x) + 0.5 * expected.mm(f64(factor));
          CHECK(relative(y, sum) < (type == at::kFloat ? 1e-6 : 3e-3));
          // bf16 results are rounded once.
          if (type == at::kBFloat16)
            CHECK((f64(y) - sum)
                      .abs()
                      .lt(sum.abs() * 0x1.01p-8 + sum.abs().max() * 2e-7)
                      .all()
                      .item<bool>());
          at::Tensor gradient = f.clone();
          const at::Tensor wanted = f64(f) + 2 * expected.t().mm(f64(x));
          engine::low_rank_gradient(p, x, 2, gradient, workspace);
          CHECK(relative(gradient, wanted) < 1e-6);
        }
      }
}

}  // namespace
}  // namespace lora
