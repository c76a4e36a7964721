#include "engine/generic/head.h"

#include <ATen/core/Reduction.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mse_loss.h>

#include <algorithm>

#include "engine/bridge.h"
#include "lora/adapter/adapter.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

constexpr std::int64_t kChunk = 512;

double differentiate(const at::Tensor& loss, double gradient_scale) {
  if (gradient_scale != 0 && loss.requires_grad()) loss.mul(gradient_scale).backward();
  return loss.detach().item<double>();
}

at::Tensor index_view(const std::vector<std::int64_t>& indices, std::int64_t begin,
                      std::int64_t count) {
  return at::from_blob(const_cast<std::int64_t*>(indices.data() + begin), {count}, at::kLong);
}

Error wrong_labels(const Tensor& y, const std::string& expected) {
  return Error(ErrorKind::incompatible, "computing the loss: y is " +
                                            std::string(to_string(y.dtype)) + " " +
                                            shape_to_string(y.shape) + ", expected " + expected)
      .in_tensor("y");
}

}  // namespace

HeadConfig head_of(const HeadConfig& config, const std::string& classifier_path,
                   const ModelOptions& options) {
  HeadConfig head = config;
  if (head.kind == HeadConfig::Kind::sequence_classification) return head;
  for (const Adapter* adapter : options.adapters) {
    const auto weight = adapter->replacements.find(classifier_path + ".weight");
    if (weight == adapter->replacements.end() || weight->second.shape.size() != 2) continue;
    head.kind = HeadConfig::Kind::sequence_classification;
    head.num_labels = weight->second.shape[0];
  }
  return head;
}

LossSum language_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                      const Supervision& supervision, double gradient_scale) {
  LossSum result;
  result.count = static_cast<std::int64_t>(supervision.rows.size());
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  for (std::int64_t begin = 0; begin < result.count; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, result.count - begin);
    const at::Tensor chunk = at::index_select(rows, 0, index_view(supervision.rows, begin, count));
    const at::Tensor loss = at::cross_entropy_loss(network.logits(chunk, pass),
                                                   index_view(supervision.targets, begin, count),
                                                   {}, at::Reduction::Sum);
    result.sum += differentiate(loss, gradient_scale);
  }
  return result;
}

LossSum classifier_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                        const Tensor& y, double gradient_scale) {
  const at::Tensor logits = network.logits(hidden, pass);
  const std::int64_t rows = logits.size(0);
  const std::int64_t labels = logits.size(1);
  const std::string problem = network.problem_type();
  at::Tensor loss;
  LossSum result;
  if (y.dtype == DType::i64 && problem != "regression" && labels > 1) {
    if (y.shape != std::vector<std::int64_t>{rows})
      throw wrong_labels(y, "I64 [" + std::to_string(rows) + "]");
    const at::Tensor classes = view_of(y);
    if (classes.lt(0).logical_or(classes.ge(labels)).any().item<bool>())
      throw wrong_labels(y, "classes below " + std::to_string(labels));
    loss = at::cross_entropy_loss(logits, classes, {}, at::Reduction::Sum);
    result.count = rows;
  } else {
    if (y.numel() != logits.numel())
      throw wrong_labels(y, "values " + shape_to_string(logits.sizes().vec()));
    const at::Tensor values = view_of(y).to(at::kFloat).reshape(logits.sizes());
    const bool is_regression = problem.empty() ? labels == 1 : problem == "regression";
    loss = is_regression
               ? at::mse_loss(logits, values, at::Reduction::Sum)
               : at::binary_cross_entropy_with_logits(logits, values, {}, {}, at::Reduction::Sum);
    result.count = logits.numel();
  }
  result.sum = differentiate(loss, gradient_scale);
  return result;
}

}  // namespace lora::engine
