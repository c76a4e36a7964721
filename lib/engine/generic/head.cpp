#include "engine/generic/head.h"

#include <ATen/core/Reduction.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/logsumexp.h>
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

// Null step: an evaluation.
at::Tensor class_loss(const at::Tensor& logits, const at::Tensor& classes, const Pass& pass) {
  const LossSettings settings = pass.dropout != nullptr ? pass.dropout->loss : LossSettings{};
  constexpr std::int64_t kNoClass = -100;
  const at::Tensor loss = at::cross_entropy_loss(logits, classes, {}, at::Reduction::Sum, kNoClass,
                                                 settings.label_smoothing);
  if (settings.z_loss == 0) return loss;
  return loss.add(at::logsumexp(logits, {-1}).square().sum().mul(settings.z_loss));
}

}  // namespace

HeadConfig head_of(const HeadConfig& config, const ClassifierPaths& paths,
                   const ModelOptions& options) {
  HeadConfig head = config;
  if (head.is_classifier()) return head;
  for (const Adapter* adapter : options.adapters) {
    const bool is_for_tokens = !paths.token.empty() && adapter->config.task_type == "TOKEN_CLS";
    const auto weight =
        adapter->replacements.find((is_for_tokens ? paths.token : paths.sequence) + ".weight");
    if (weight == adapter->replacements.end() || weight->second.shape.size() != 2) continue;
    head.kind = is_for_tokens ? HeadConfig::Kind::token_classification
                              : HeadConfig::Kind::sequence_classification;
    head.num_labels = weight->second.shape[0];
  }
  return head;
}

at::Tensor last_tokens(const at::Tensor& hidden, const SequencePass& pass,
                       const std::optional<std::int64_t>& padding) {
  const std::int64_t batch = hidden.size(0);
  if (!padding) {
    if (batch > 1)
      throw Error(ErrorKind::incompatible, "running the model: " + std::to_string(batch) +
                                               " rows, expected 1 while config.json has no "
                                               "pad_token_id");
    return hidden.select(1, hidden.size(1) - 1);
  }
  const at::Tensor places = at::arange(hidden.size(1), at::kLong);
  const at::Tensor last = pass.ids.ne(*padding).to(at::kLong).mul(places).argmax(1);
  return hidden.gather(1, last.view({batch, 1, 1}).expand({batch, 1, hidden.size(2)})).squeeze(1);
}

LossSum position_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                      const Supervision& supervision, double gradient_scale) {
  LossSum result;
  result.count = static_cast<std::int64_t>(supervision.rows.size());
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  // Scores of a vocabulary are large. A classifier's are not, and its dropout wants one piece.
  const std::int64_t most = network.tokens().head.is_classifier() ? result.count : kChunk;
  for (std::int64_t begin = 0; begin < result.count; begin += most) {
    const std::int64_t count = std::min(most, result.count - begin);
    const at::Tensor chunk = at::index_select(rows, 0, index_view(supervision.rows, begin, count));
    const at::Tensor loss = class_loss(network.logits(chunk, pass),
                                       index_view(supervision.targets, begin, count), pass.pass);
    result.sum += differentiate(loss, gradient_scale);
  }
  return result;
}

LossSum classifier_loss(Network& network, const SequencePass& pass, const at::Tensor& hidden,
                        const Tensor& y, double gradient_scale) {
  const at::Tensor logits = network.logits(hidden, pass);
  const std::int64_t rows = logits.size(0);
  const std::int64_t labels = logits.size(1);
  const std::string problem = network.tokens().head.problem_type;
  at::Tensor loss;
  LossSum result;
  if (y.dtype == DType::i64 && problem != "regression" && labels > 1) {
    if (y.shape != std::vector<std::int64_t>{rows})
      throw wrong_labels(y, "I64 [" + std::to_string(rows) + "]");
    const at::Tensor classes = view_of(y);
    if (classes.lt(0).logical_or(classes.ge(labels)).any().item<bool>())
      throw wrong_labels(y, "classes below " + std::to_string(labels));
    loss = class_loss(logits, classes, pass.pass);
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
