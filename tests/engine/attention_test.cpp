#include "support/torch_testing.h"
//
#include <ATen/Parallel.h>

#include "engine/llama/attention.h"

namespace lora {
namespace {

using engine::AttentionInput;
using engine::HeadShape;

at::Tensor random(at::IntArrayRef sizes, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator);
}
double relative(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

struct Case {
  std::string name;
  HeadShape shape;
  std::int64_t window = 0;  ///< 0: none
  std::vector<std::int32_t> documents{};
  std::vector<std::int64_t> hidden_keys{};  ///< of the first row
  float cap = 0;
};

// Heads [batch, kv_heads, time, group, dim] computed by autograd in f64.
struct Expected {
  at::Tensor out, dq, dk, dv;
};

class Problem {
 public:
  Problem(const Case& test, at::ScalarType type) : shape_(test.shape), cap_(test.cap) {
    const HeadShape& s = shape_;
    const std::vector<std::int64_t> queries{s.batch, s.kv_heads, s.time, s.group, s.dim};
    const std::vector<std::int64_t> keys{s.batch, s.kv_heads, s.time, 1, s.dim};
    input_.shape = s;
    input_.rule = {1.0F / std::sqrt(static_cast<float>(s.dim)), test.cap};
    input_.q = random(queries, 1).mul(2).to(type);
    input_.k = random(keys, 2).to(type);
    input_.v = random(keys, 3).to(type);
    g = random(queries, 4).to(type);

    at::Tensor visible = at::ones({s.batch, s.time, s.time}, at::kBool).tril();
    first_ = at::zeros({s.batch, s.time}, at::kInt);
    for (std::int64_t t = 0; t < s.time; ++t) {
      std::int64_t first = test.window == 0 ? 0 : std::max<std::int64_t>(0, t + 1 - test.window);
      for (const std::int32_t start : test.documents)
        if (start <= t) first = std::max<std::int64_t>(first, start);
      first_.select(1, t).fill_(first);
      visible.select(1, t).narrow(1, 0, first).fill_(false);
    }
    if (test.window != 0 || !test.documents.empty())
      input_.first_visible = first_.const_data_ptr<std::int32_t>();
    mask_ = at::ones({s.batch, s.time}, at::kByte);
    for (const std::int64_t key : test.hidden_keys) mask_[0][key] = 0;
    if (!test.hidden_keys.empty()) input_.key_mask = mask_.const_data_ptr<std::uint8_t>();
    hidden_ = visible.logical_and(mask_.ne(0).unsqueeze(1)).logical_not().unsqueeze(1).unsqueeze(3);
  }

  Expected solve() const {
    const auto leaf = [](const at::Tensor& t) { return t.to(at::kDouble).requires_grad_(); };
    const at::Tensor q = leaf(input_.q);
    const at::Tensor k = leaf(input_.k);
    const at::Tensor v = leaf(input_.v);
    // scores [batch, kv_heads, time, group, keys]
    at::Tensor scores = at::einsum("bhtgd,bhsxd->bhtgs", {q, k}) * input_.rule.scale;
    if (cap_ != 0) scores = cap_ * at::tanh(scores / cap_);
    const at::Tensor p =
        at::softmax(scores.masked_fill(hidden_, -1e300), -1).masked_fill(hidden_.all(-1, true), 0);
    const at::Tensor out = at::einsum("bhtgs,bhsxd->bhtgd", {p, v});
    out.backward(g.to(at::kDouble));
    return {out.detach(), q.grad(), k.grad(), v.grad()};
  }

  const AttentionInput& input() const { return input_; }
  at::Tensor g;

 private:
  HeadShape shape_;
  float cap_;
  AttentionInput input_;
  at::Tensor first_, mask_, hidden_;
};

const std::vector<Case> kCases{
    {"one position", {2, 1, 2, 3, 8}},
    {"one block", {2, 37, 2, 3, 8}},
    {"several blocks", {1, 301, 1, 3, 16}},
    {"several blocks for each of several matrices", {2, 523, 2, 2, 6}},
    {"a window", {1, 301, 1, 3, 16}, 70},
    {"documents", {1, 301, 2, 1, 16}, 0, {5, 40, 41, 290}},
    {"documents and a window", {1, 301, 2, 1, 16}, 33, {5, 40, 41, 290}},
    {"hidden keys", {2, 150, 1, 2, 16}, 0, {}, {0, 1, 2, 77}},
    {"a cap", {1, 301, 1, 3, 16}, 0, {}, {}, 1.5F},
    {"a cap, a window and hidden keys", {2, 200, 1, 3, 16}, 45, {}, {0, 1, 60}, 1.5F}};

TEST_CASE("attention and its gradients agree with autograd in f64", "[engine]") {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const Case& test : kCases) {
      INFO(test.name << " in " << type);
      const Problem problem(test, type);
      const Expected expected = problem.solve();
      const AttentionInput& input = problem.input();
      const double tolerance = type == at::kFloat ? 2e-6 : 6e-3;
      const auto fresh = [](const at::Tensor& like) { return at::full_like(like, 7); };
      at::Tensor out = fresh(input.q);
      engine::attention(input, out);
      CHECK(relative(out, expected.out) < tolerance);
      at::Tensor dq = fresh(input.q);
      at::Tensor dk = fresh(input.k);
      at::Tensor dv = fresh(input.v);
      engine::attention_backward(input, problem.g, dq, dk, dv);
      CHECK(relative(dv, expected.dv) < tolerance);
      if (test.shape.time == 1) continue;  // one key: no gradient reaches the scores
      CHECK(relative(dq, expected.dq) < tolerance);
      CHECK(relative(dk, expected.dk) < tolerance);
    }
}

TEST_CASE("attention gives the same bytes on any number of threads", "[engine]") {
  const int threads = at::get_num_threads();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const std::size_t i : {2, 3, 9}) {
      const Problem problem(kCases[i], type);
      std::vector<at::Tensor> results;
      for (const int count : {1, 3}) {
        at::set_num_threads(count);
        const AttentionInput& input = problem.input();
        at::Tensor dq = at::empty_like(input.q);
        at::Tensor dk = at::empty_like(input.k);
        at::Tensor dv = at::empty_like(input.v);
        engine::attention_backward(input, problem.g, dq, dk, dv);
        results.push_back(at::cat({dq.flatten(), dk.flatten(), dv.flatten()}));
      }
      CHECK(results[0].equal(results[1]));
    }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace lora
