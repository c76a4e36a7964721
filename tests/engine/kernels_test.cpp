#include "support/torch_testing.h"
//
#include "engine/kernels/kernels.h"

namespace lora {
namespace {

at::Tensor random(at::IntArrayRef sizes, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator);
}
double distance(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}
const float* in(const at::Tensor& tensor) { return tensor.const_data_ptr<float>(); }
float* out(at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

// Widths that do and do not fill whole vectors.
const std::vector<std::int64_t> kWidths{1, 7, 8, 37, 64};

TEST_CASE("RMSNorm and its gradient agree with autograd in f64", "[engine]") {
  for (const std::int64_t width : kWidths) {
    const at::Tensor x = random({5, width}, 1);
    const at::Tensor weight = random({width}, 2);
    const at::Tensor g = random({5, width}, 3);
    const at::Tensor wide = x.to(at::kDouble).requires_grad_();
    const at::Tensor expected =
        wide * (wide.square().mean(1, true) + 1e-5).rsqrt() * weight.to(at::kDouble);
    expected.backward(g.to(at::kDouble));
    at::Tensor y = at::empty_like(x);
    engine::rms_norm(in(x), in(weight), 1e-5, 5, width, out(y));
    CHECK(distance(y, expected.detach()) < 1e-5);
    at::Tensor dx = at::ones_like(x);
    engine::rms_norm_backward(in(g), in(x), in(weight), 1e-5, 5, width, out(dx));
    CHECK(distance(dx - 1, wide.grad()) < 2e-5 * (1 + wide.grad().abs().max().item<double>()));
  }
}

TEST_CASE("SwiGLU and its gradients agree with autograd in f64", "[engine]") {
  const at::Tensor gate = random({1003}, 1) * 6;
  const at::Tensor up = random({1003}, 2);
  const at::Tensor g = random({1003}, 3);
  const at::Tensor wide_gate = gate.to(at::kDouble).requires_grad_();
  const at::Tensor wide_up = up.to(at::kDouble).requires_grad_();
  const at::Tensor expected = at::silu(wide_gate) * wide_up;
  expected.backward(g.to(at::kDouble));
  at::Tensor y = at::empty_like(gate);
  engine::swiglu(in(gate), in(up), 1003, out(y));
  CHECK(distance(y, expected.detach()) < 1e-5);
  at::Tensor dgate = gate.clone();
  at::Tensor dup = up.clone();
  engine::swiglu_backward(in(g), 1003, out(dgate), out(dup));
  CHECK(distance(dgate, wide_gate.grad()) < 1e-5);
  CHECK(distance(dup, wide_up.grad()) < 1e-5);
}

TEST_CASE("causal softmax hides later and masked keys, with the gradient of autograd", "[engine]") {
  const at::Tensor mask = at::tensor({1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1}, at::kByte).view({1, 11});
  const at::Tensor scores = random({8, 11}, 1) * 3;  // 4 queries from position 7, 2 a group
  const at::Tensor g = random({8, 11}, 2);
  at::Tensor hidden = at::zeros({8, 11}, at::kBool);
  for (std::int64_t row = 0; row < 8; ++row)
    for (std::int64_t key = 0; key < 11; ++key)
      hidden[row][key] = key > 7 + row / 2 || mask[0][key].item<int>() == 0;
  const at::Tensor wide = scores.to(at::kDouble).requires_grad_();
  const at::Tensor expected =
      at::softmax((wide * 0.5).masked_fill(hidden, -std::numeric_limits<double>::infinity()), 1);
  expected.backward(g.to(at::kDouble));
  engine::ScoreBlock block{1, 1, 2, 4, 11, 7, mask.const_data_ptr<std::uint8_t>(), 11};
  at::Tensor p = scores.clone();
  engine::causal_softmax(block, 0.5F, out(p));
  CHECK(distance(p, expected.detach()) < 1e-6);
  at::Tensor dp = g.clone();
  engine::causal_softmax_backward(block, 0.5F, in(p), out(dp));
  CHECK(distance(dp, wide.grad()) < 1e-6);
}

TEST_CASE("a query that sees no key gets zeros", "[engine]") {
  const at::Tensor mask = at::zeros({1, 3}, at::kByte);
  at::Tensor p = random({3, 3}, 1);
  engine::causal_softmax({1, 1, 1, 3, 3, 0, mask.const_data_ptr<std::uint8_t>(), 3}, 1, out(p));
  CHECK(p.equal(at::zeros({3, 3})));
}

TEST_CASE("cross entropy and its gradient agree with autograd in f64", "[engine]") {
  for (const std::int64_t classes : {1, 9, 2051}) {
    const at::Tensor logits = random({4, classes}, 5) * 10;
    const at::Tensor labels = at::tensor({0L, classes / 2, classes - 1, 0L}, at::kLong);
    const at::Tensor wide = logits.to(at::kDouble).requires_grad_();
    const at::Tensor losses = at::cross_entropy_loss(wide, labels, {}, at::Reduction::None);
    (losses.sum() * 0.25).backward();
    at::Tensor gradient = logits.clone();
    std::vector<double> actual(4);
    engine::cross_entropy(out(gradient), labels.const_data_ptr<std::int64_t>(), 4, classes, 0.25F,
                          actual.data());
    for (std::int64_t i = 0; i < 4; ++i)
      CHECK(std::abs(actual[static_cast<std::size_t>(i)] - losses[i].item<double>()) < 2e-5);
    CHECK(distance(gradient, wide.grad()) < 1e-6);
    at::Tensor untouched = logits.clone();
    engine::cross_entropy(out(untouched), labels.const_data_ptr<std::int64_t>(), 4, classes, 0,
                          actual.data());
    CHECK(untouched.equal(logits));
  }
}

TEST_CASE("heads go to their layout rotated and come back", "[engine]") {
  const engine::HeadShape shape{2, 5, 3, 2, 12};
  const at::Tensor rows = random({10, 72}, 1);
  const at::Tensor angles = random({5, 6}, 2);
  const at::Tensor cos = angles.cos();
  const at::Tensor sin = angles.sin();
  const at::Tensor heads = rows.view({2, 5, 6, 12}).transpose(1, 2);  // [batch, head, time, dim]
  const at::Tensor first = heads.narrow(3, 0, 6);
  const at::Tensor second = heads.narrow(3, 6, 6);
  const at::Tensor rotated = at::cat({first * cos - second * sin, second * cos + first * sin}, 3)
                                 .view({2, 3, 2, 5, 12})
                                 .transpose(2, 3);
  at::Tensor actual = at::empty({2, 3, 5, 2, 12});
  engine::split_heads(in(rows), shape, in(cos), in(sin), out(actual));
  CHECK(distance(actual, rotated) < 1e-6);
  at::Tensor back = at::empty_like(rows);
  engine::merge_heads(in(actual), shape, in(cos), in(sin), out(back));
  CHECK(distance(back, rows) < 1e-6);
  engine::split_heads(in(rows), shape, nullptr, nullptr, out(actual));
  engine::merge_heads(in(actual), shape, nullptr, nullptr, out(back));
  CHECK(back.equal(rows));
}

TEST_CASE("products with few rows agree with f64 for f32 and bf16 weights", "[engine]") {
  for (const std::int64_t inputs : {3, 32, 77}) {
    const at::Tensor x = random({3, inputs}, 1);
    const at::Tensor weight = random({19, inputs}, 2);
    const at::Tensor rounded = weight.to(at::kBFloat16);
    at::Tensor y = at::empty({3, 19});
    engine::few_row_product(in(x), 3, in(weight), 19, inputs, out(y));
    CHECK(distance(y, x.to(at::kDouble).mm(weight.to(at::kDouble).t())) < 1e-5);
    engine::few_row_product(in(x), 3, static_cast<const std::uint16_t*>(rounded.const_data_ptr()),
                            19, inputs, out(y));
    CHECK(distance(y, x.to(at::kDouble).mm(rounded.to(at::kDouble).t())) < 1e-5);
  }
}

TEST_CASE("dropout keeps the right share, scales it, and depends on key and index only",
          "[engine]") {
  const at::Tensor x = at::ones({200003});
  at::Tensor y = at::empty_like(x);
  engine::apply_dropout(in(x), x.numel(), 0.3, 42, out(y));
  const double kept = y.ne(0).to(at::kDouble).mean().item<double>();
  CHECK(std::abs(kept - 0.7) < 0.005);
  CHECK(std::abs(y.max().item<double>() - 1 / 0.7) < 1e-6);
  at::Tensor again = at::empty({1001});
  engine::apply_dropout(in(x), 1001, 0.3, 42, out(again));
  CHECK(again.equal(y.narrow(0, 0, 1001)));
  engine::apply_dropout(in(x), 1001, 0.3, 43, out(again));
  CHECK_FALSE(again.equal(y.narrow(0, 0, 1001)));
  // Neighbouring elements are dropped independently.
  const at::Tensor bits = y.ne(0).to(at::kDouble);
  const double both = (bits.narrow(0, 0, 200002) * bits.narrow(0, 1, 200002)).mean().item<double>();
  CHECK(std::abs(both - 0.49) < 0.006);
}

TEST_CASE("cached attention of the last position equals softmax(q k^T) v", "[engine]") {
  const at::Tensor q = random({2, 3, 12}, 1);
  const at::Tensor keys = random({2, 9, 12}, 2);
  const at::Tensor values = random({2, 9, 12}, 3);
  at::Tensor actual = at::empty_like(q);
  engine::cached_attention(in(q), in(keys), in(values), {1, 1, 2, 3, 12}, 9, 7, 0.25F, out(actual));
  const at::Tensor p = at::softmax(q.bmm(keys.narrow(1, 0, 7).transpose(1, 2)) * 0.25, 2);
  CHECK(distance(actual, p.bmm(values.narrow(1, 0, 7))) < 1e-5);
}

}  // namespace
}  // namespace lora
