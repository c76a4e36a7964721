#include "support/torch_testing.h"
//
#include "engine/gemm.h"
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
    // Values less one half, which the offset gives back.
    const at::Tensor values = weight - 0.5;
    const engine::NormWeight norm{in(values), width, 0.5F, 1e-5F};
    engine::rms_norm(in(x), norm, 5, out(y));
    CHECK(distance(y, expected.detach()) < 1e-5);
    const double tolerance = 2e-5 * (1 + wide.grad().abs().max().item<double>());
    at::Tensor dx = at::ones_like(x);
    engine::rms_norm_backward(in(g), in(x), norm, 5, true, out(dx));
    CHECK(distance(dx - 1, wide.grad()) < tolerance);
    at::Tensor in_place = g.clone();
    engine::rms_norm_backward(in(in_place), in(x), norm, 5, false, out(in_place));
    CHECK(distance(in_place, wide.grad()) < tolerance);
  }
}

TEST_CASE("gated activations and their gradients agree with autograd in f64", "[engine]") {
  for (const engine::Gate kind : {engine::Gate::silu, engine::Gate::gelu_tanh}) {
    // Both are slices of one matrix, as a fused layer leaves them.
    const at::Tensor both = at::cat({random({17, 59}, 1) * 6, random({17, 59}, 2)}, 1);
    const at::Tensor g = random({17, 59}, 3);
    const at::Tensor wide_gate = both.narrow(1, 0, 59).to(at::kDouble).requires_grad_();
    const at::Tensor wide_up = both.narrow(1, 59, 59).to(at::kDouble).requires_grad_();
    const at::Tensor active =
        kind == engine::Gate::silu ? at::silu(wide_gate) : at::gelu(wide_gate, "tanh");
    const at::Tensor expected = active * wide_up;
    expected.backward(g.to(at::kDouble));
    const engine::GateShape shape{17, 59, 118};
    at::Tensor y = at::empty_like(g);
    engine::gated(kind, in(both), in(both) + 59, shape, out(y));
    CHECK(distance(y, expected.detach()) < 1e-5);
    at::Tensor gradients = both.clone();
    engine::gated_backward(kind, in(g), shape, out(gradients), out(gradients) + 59);
    CHECK(distance(gradients.narrow(1, 0, 59), wide_gate.grad()) < 1e-5);
    CHECK(distance(gradients.narrow(1, 59, 59), wide_up.grad()) < 1e-5);
  }
}

TEST_CASE("causal softmax hides later, earlier and masked keys, with the gradient of autograd",
          "[engine]") {
  // Four queries from position 9 on, two rows each; column 0 is key 2.
  const at::Tensor mask = at::tensor({1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1}, at::kByte);
  const at::Tensor first = at::tensor({0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 11, 12}, at::kInt);
  const at::Tensor scores = random({8, 11}, 1) * 3;
  const at::Tensor g = random({8, 11}, 2);
  at::Tensor hidden = at::zeros({8, 11}, at::kBool);
  for (std::int64_t row = 0; row < 8; ++row)
    for (std::int64_t column = 0; column < 11; ++column) {
      const std::int64_t position = 9 + row / 2;
      const std::int64_t key = 2 + column;
      hidden[row][column] =
          key > position || key < first[position].item<int>() || mask[key].item<int>() == 0;
    }
  const at::Tensor sees_nothing = hidden.all(1, true);
  REQUIRE(sees_nothing.sum().item<int>() == 2);  // position 11 has itself masked
  for (const float cap : {0.0F, 1.5F}) {
    const at::Tensor wide = scores.to(at::kDouble).requires_grad_();
    at::Tensor raw = wide * 0.5;
    if (cap != 0) raw = cap * at::tanh(raw / cap);
    const at::Tensor expected =
        at::softmax(raw.masked_fill(hidden, -1e300), 1).masked_fill(sees_nothing, 0);
    expected.backward(g.to(at::kDouble));
    engine::ScoreBlock block{
        2, 4, 11, 9, 2, mask.const_data_ptr<std::uint8_t>(), first.const_data_ptr<std::int32_t>()};
    const engine::ScoreRule rule{0.5F, cap};
    at::Tensor p = scores.clone();
    at::Tensor slopes = at::empty_like(scores);
    engine::causal_softmax(block, rule, out(p), out(slopes));
    CHECK(distance(p, expected.detach()) < 1e-6);
    at::Tensor dp = g.clone();
    engine::causal_softmax_backward(block, rule, in(p), cap == 0 ? nullptr : in(slopes), out(dp));
    CHECK(distance(dp, wide.grad()) < 1e-6);
  }
}

TEST_CASE("soft caps and their gradient agree with autograd in f64", "[engine]") {
  const at::Tensor logits = random({1003}, 1) * 40;
  const at::Tensor g = random({1003}, 2);
  const at::Tensor wide = logits.to(at::kDouble).requires_grad_();
  const at::Tensor expected = 30 * at::tanh(wide / 30);
  expected.backward(g.to(at::kDouble));
  at::Tensor capped = logits.clone();
  engine::soft_cap(30, 1003, out(capped));
  CHECK(distance(capped, expected.detach()) < 1e-5);
  at::Tensor back = g.clone();
  engine::soft_cap_backward(30, in(capped), 1003, out(back));
  CHECK(distance(back, wide.grad()) < 1e-5);
}

TEST_CASE("bf16 rounds to the nearest even and keeps NaN, infinities and exact values",
          "[engine]") {
  at::Tensor values = random({1003}, 1) * 1e3;
  values[5] = std::numeric_limits<float>::quiet_NaN();
  values[6] = std::numeric_limits<float>::infinity();
  values[7] = 1.00390625F;  // halfway between 1 and 1.0078125
  values[1002] = -std::numeric_limits<float>::quiet_NaN();
  at::Tensor rounded = at::empty({1003}, at::kBFloat16);
  engine::convert_all(in(values), 1003, 1, static_cast<engine::Bf16*>(rounded.data_ptr()));
  const at::Tensor expected = values.to(at::kBFloat16);
  CHECK(at::equal(rounded.isnan(), expected.isnan()));
  CHECK(at::equal(rounded.nan_to_num(), expected.nan_to_num()));
  at::Tensor wide = at::empty_like(values);
  engine::convert_all(static_cast<const engine::Bf16*>(rounded.const_data_ptr()), 1003, 1,
                      out(wide));
  CHECK(at::equal(wide.nan_to_num(), expected.to(at::kFloat).nan_to_num()));
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

TEST_CASE("label smoothing and z-loss have the loss and the gradient of autograd", "[engine]") {
  for (const std::int64_t classes : {3, 40, 1201}) {
    const at::Tensor logits = random({4, classes}, 6) * 4;
    const at::Tensor labels =
        at::tensor({std::int64_t{0}, std::int64_t{2}, std::int64_t{1}, classes - 1});
    for (const engine::LossSettings settings :
         {engine::LossSettings{0.1, 0}, engine::LossSettings{0, 0.01},
          engine::LossSettings{0.2, 0.02}}) {
      const at::Tensor wide = logits.to(at::kDouble).requires_grad_(true);
      const at::Tensor losses = at::cross_entropy_loss(wide, labels, {}, at::Reduction::None, -100,
                                                       settings.label_smoothing) +
                                settings.z_loss * at::logsumexp(wide, {-1}).square();
      (losses.sum() * 0.25).backward();
      at::Tensor gradient = logits.clone();
      std::vector<double> actual(4);
      engine::cross_entropy(out(gradient), labels.const_data_ptr<std::int64_t>(), 4, classes, 0.25F,
                            actual.data(), settings);
      for (std::int64_t i = 0; i < 4; ++i)
        CHECK(std::abs(actual[static_cast<std::size_t>(i)] - losses[i].item<double>()) < 2e-5);
      CHECK(distance(gradient, wide.grad()) < 1e-6);
    }
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
  engine::Rotation rotation{in(cos), in(sin), 6};
  engine::split_heads(in(rows), shape, rotation, out(actual));
  CHECK(distance(actual, rotated) < 1e-6);
  at::Tensor back = at::empty_like(rows);
  engine::merge_heads(in(actual), shape, rotation, out(back));
  CHECK(distance(back, rows) < 1e-6);
  engine::split_heads(in(rows), shape, engine::Rotation{}, out(actual));
  engine::merge_heads(in(actual), shape, engine::Rotation{}, out(back));
  CHECK(back.equal(rows));
}

// Kernels in bf16 round what the same kernel gives in f32 for the same numbers.
TEST_CASE("kernels on bf16 give the rounded results of f32", "[engine]") {
  const auto bf16 = [](const at::Tensor& tensor) { return tensor.to(at::kBFloat16); };
  const auto bits = [](const at::Tensor& tensor) {
    return static_cast<const engine::Bf16*>(tensor.const_data_ptr());
  };
  const auto target = [](at::Tensor& tensor) {
    return static_cast<engine::Bf16*>(tensor.mutable_data_ptr());
  };
  for (const std::int64_t width : kWidths) {
    const at::Tensor x = bf16(random({5, width}, 1));
    const at::Tensor g = bf16(random({5, width}, 2));
    const at::Tensor wide_x = x.to(at::kFloat);
    const at::Tensor wide_g = g.to(at::kFloat);
    const at::Tensor weight = random({width}, 3);
    const engine::NormWeight norm{in(weight), width, 0, 1e-5F};
    at::Tensor y = at::empty_like(x);
    at::Tensor wide_y = at::empty_like(wide_x);
    engine::rms_norm(bits(x), norm, 5, target(y));
    engine::rms_norm(in(wide_x), norm, 5, out(wide_y));
    CHECK(y.equal(bf16(wide_y)));
    engine::rms_norm_backward(bits(g), bits(x), norm, 5, false, target(y));
    engine::rms_norm_backward(in(wide_g), in(wide_x), norm, 5, false, out(wide_y));
    CHECK(y.equal(bf16(wide_y)));
    const engine::GateShape shape{5, width, width};
    engine::gated(engine::Gate::silu, bits(x), bits(g), shape, target(y));
    engine::gated(engine::Gate::silu, in(wide_x), in(wide_g), shape, out(wide_y));
    CHECK(y.equal(bf16(wide_y)));
    at::Tensor sum = wide_g.clone();
    engine::add_scaled(in(wide_g), bits(x), 5 * width, 0.5F, out(sum));
    CHECK(distance(sum, wide_g + wide_x * 0.5) < 1e-6);
    at::Tensor pairs = at::empty({3, width, 2}, at::kBFloat16);
    engine::pack_pairs(in(wide_x), 5, width, target(pairs));
    const at::Tensor padded = at::cat({x, at::zeros({1, width}, at::kBFloat16)});
    CHECK(pairs.equal(padded.view({3, 2, width}).transpose(1, 2)));
  }
}

TEST_CASE("products with a weight that is widened block by block agree with f64", "[engine]") {
  engine::Workspace workspace;
  // Three blocks of rows: those of so wide a weight have 64 each.
  const at::Tensor weight = random({150, 20000}, 1).to(at::kBFloat16);
  const at::Tensor wide = weight.to(at::kDouble);
  const at::Tensor x = random({6, 20000}, 2);
  at::Tensor y = at::empty({6, 150});
  engine::multiply_widened(x, weight, y, workspace);
  const at::Tensor expected = x.to(at::kDouble).mm(wide.t());
  CHECK(distance(y, expected) < 1e-6 * expected.abs().max().item<double>());
  at::Tensor dx = at::empty_like(x);
  engine::multiply_transposed_widened(y, weight, dx, false, workspace);
  const at::Tensor gradient = y.to(at::kDouble).mm(wide);
  const double tolerance = 2e-6 * gradient.abs().max().item<double>();
  CHECK(distance(dx, gradient) < tolerance);
  engine::multiply_transposed_widened(y, weight, dx, true, workspace);
  CHECK(distance(dx, gradient * 2) < tolerance * 2);
}

TEST_CASE("a part of a head turns by given positions, in slices of wider rows", "[engine]") {
  const engine::HeadShape shape{1, 4, 1, 1, 7, 10};
  const at::Tensor rows = random({4, 10}, 1);
  const at::Tensor angles = random({9, 2}, 2);
  const at::Tensor cos = angles.cos();
  const at::Tensor sin = angles.sin();
  const at::Tensor positions = at::tensor({8, 0, 3, 3}, at::kInt);
  const at::Tensor c = cos.index_select(0, positions);
  const at::Tensor s = sin.index_select(0, positions);
  const at::Tensor first = rows.narrow(1, 2, 2);
  const at::Tensor second = rows.narrow(1, 4, 2);
  const at::Tensor expected =
      at::cat({first * c - second * s, second * c + first * s, rows.narrow(1, 6, 3)}, 1);
  const engine::Rotation rotation{in(cos), in(sin), 2, positions.const_data_ptr<std::int32_t>()};
  at::Tensor heads = at::empty({4, 7});
  engine::split_heads(in(rows) + 2, shape, rotation, out(heads));
  CHECK(distance(heads, expected) < 1e-6);
  at::Tensor back = rows.clone();
  back.narrow(1, 2, 7).zero_();
  engine::merge_heads(in(heads), shape, rotation, out(back) + 2);
  CHECK(distance(back, rows) < 1e-6);
}

TEST_CASE("products with few rows agree with f64 for f32 and bf16 weights", "[engine]") {
  for (const std::int64_t inputs : {3, 32, 77}) {
    const at::Tensor x = random({3, inputs}, 1);
    const at::Tensor weight = random({19, inputs}, 2);
    const at::Tensor rounded = weight.to(at::kBFloat16);
    at::Tensor y = at::empty({3, 19});
    engine::few_row_product(in(x), 3, in(weight), 19, inputs, out(y));
    CHECK(distance(y, x.to(at::kDouble).mm(weight.to(at::kDouble).t())) < 1e-5);
    engine::few_row_product(in(x), 3, static_cast<const engine::Bf16*>(rounded.const_data_ptr()),
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
  for (const std::int64_t begin : {0, 3}) {
    for (const float cap : {0.0F, 2.0F}) {
      const std::int64_t count = 7 - begin;
      const engine::CachedKeys cache{in(keys), in(values), 9, begin, 7};
      engine::cached_attention(in(q), cache, {1, 1, 2, 3, 12}, {0.25F, cap}, out(actual));
      at::Tensor scores = q.bmm(keys.narrow(1, begin, count).transpose(1, 2)) * 0.25;
      if (cap != 0) scores = cap * at::tanh(scores / cap);
      const at::Tensor p = at::softmax(scores, 2);
      CHECK(distance(actual, p.bmm(values.narrow(1, begin, count))) < 1e-5);
    }
  }
}

}  // namespace
}  // namespace lora
