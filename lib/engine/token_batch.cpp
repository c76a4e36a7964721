#include "engine/token_batch.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ne.h>

#include <algorithm>

#include "engine/bridge.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

void check_ids(const std::vector<std::int64_t>& ids, std::int64_t count, const char* name) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= count)
      throw Error(ErrorKind::incompatible, "running the model: token id " + std::to_string(ids[i]) +
                                               " at position " + std::to_string(i) +
                                               ", expected 0 to " + std::to_string(count - 1))
          .in_tensor(name);
}

std::vector<std::int64_t> read_ids(const Tensor& tensor, std::int64_t count, const char* name) {
  if (tensor.dtype != DType::i64 || tensor.shape.size() != 2 || tensor.numel() == 0)
    throw Error(ErrorKind::incompatible, "running the model: " + std::string(name) + " are " +
                                             std::string(to_string(tensor.dtype)) + " " +
                                             shape_to_string(tensor.shape) +
                                             ", expected I64 [batch, seq]")
        .in_tensor(name);
  const at::Tensor view = view_of(tensor);
  const auto* values = view.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> ids(values, values + view.numel());
  check_ids(ids, count, name);
  return ids;
}

void check_shape(const char* name, const Tensor& tensor, const Tensor& ids) {
  if (tensor.shape == ids.shape) return;
  throw Error(ErrorKind::incompatible, "running the model: " + std::string(name) + " has shape " +
                                           shape_to_string(tensor.shape) + ", expected " +
                                           shape_to_string(ids.shape))
      .in_tensor(name);
}

std::vector<std::uint8_t> read_mask(const Tensor& tensor, const Tensor& ids) {
  check_shape("attention_mask", tensor, ids);
  const at::Tensor present = view_of(tensor).ne(0).contiguous();
  const bool* values = present.const_data_ptr<bool>();
  std::vector<std::uint8_t> mask(values, values + present.numel());
  if (std::find(mask.begin(), mask.end(), 0) == mask.end()) mask.clear();
  return mask;
}

// Documents lie one behind the other: a position continues the document of the one before it, or
// begins one.
std::vector<std::int32_t> read_starts(const Batch& batch, std::int64_t time,
                                      const TokenModel& model) {
  std::vector<std::int32_t> result;
  if (batch.starts.empty()) return result;
  if (!model.is_causal)
    throw Error(ErrorKind::unsupported,
                "running the model: several documents share a row, which only a language model "
                "that predicts the next token can tell apart");
  bool fits = batch.starts.size() == batch.input_ids.size();
  for (std::int64_t row = 0; fits && row < batch.rows; ++row) {
    const auto first = batch.starts.begin() + row * batch.columns;
    for (std::int64_t t = 0; fits && t < time; ++t)
      fits = first[t] == t || (t > 0 && first[t] == first[t - 1]);
    result.insert(result.end(), first, first + time);
  }
  if (!fits)
    throw Error(ErrorKind::incompatible,
                "running the model: the documents of a packed batch do not lie one behind the "
                "other");
  return result;
}

}  // namespace

std::int64_t longest_document(const TokenBatch& tokens) {
  if (tokens.starts.empty()) return tokens.time;
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < tokens.starts.size(); ++i)
    longest = std::max(longest, static_cast<std::int64_t>(i) % tokens.time - tokens.starts[i] + 1);
  return longest;
}

void check_positions(std::int64_t positions, const TokenModel& model) {
  if (positions <= model.max_positions) return;
  throw Error(ErrorKind::incompatible, "running the model: " + std::to_string(positions) +
                                           " positions, expected at most its " +
                                           std::to_string(model.max_positions));
}

TokenBatch read_tokens(const TensorMap& inputs, const TokenModel& model, std::int64_t token_types) {
  const bool has_types = token_types > 0;
  for (const auto& [name, tensor] : inputs)
    if (name != "input_ids" && name != "attention_mask" && !(has_types && name == "token_type_ids"))
      throw Error(ErrorKind::incompatible,
                  "running the model: found the input " + name + ", expected input_ids" +
                      (has_types ? ", attention_mask and token_type_ids" : " and attention_mask"))
          .in_tensor(name);
  const auto ids = inputs.find("input_ids");
  if (ids == inputs.end())
    throw Error(ErrorKind::incompatible, "running the model: there are no input_ids");
  TokenBatch result;
  result.ids = read_ids(ids->second, model.vocab_size, "input_ids");
  result.batch = ids->second.shape[0];
  result.time = ids->second.shape[1];
  check_positions(result.time, model);
  if (const auto mask = inputs.find("attention_mask"); mask != inputs.end())
    result.mask = read_mask(mask->second, ids->second);
  if (const auto types = inputs.find("token_type_ids"); types != inputs.end()) {
    check_shape("token_type_ids", types->second, ids->second);
    result.types = read_ids(types->second, token_types, "token_type_ids");
  }
  return result;
}

TokenBatch read_tokens(const Batch& batch, const TokenModel& model) {
  TokenBatch result;
  result.batch = batch.rows;
  result.time = batch.columns;
  if (!batch.lengths.empty())
    result.time = std::clamp<std::int64_t>(
        *std::max_element(batch.lengths.begin(), batch.lengths.end()), 1, batch.columns);
  if (batch.rows <= 0 || batch.columns <= 0 ||
      static_cast<std::int64_t>(batch.input_ids.size()) != batch.rows * batch.columns)
    throw Error(ErrorKind::incompatible, "running the model: a batch of " +
                                             std::to_string(batch.rows) + " x " +
                                             std::to_string(batch.columns) + " with " +
                                             std::to_string(batch.input_ids.size()) + " token ids");
  result.starts = read_starts(batch, result.time, model);
  check_positions(longest_document(result), model);
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const auto first = batch.input_ids.begin() + row * batch.columns;
    result.ids.insert(result.ids.end(), first, first + result.time);
  }
  check_ids(result.ids, model.vocab_size, "input_ids");
  return result;
}

Supervision read_labels(const Batch& batch, const TokenBatch& tokens, const TokenModel& model) {
  Supervision result;
  if (batch.labels.size() != batch.input_ids.size())
    throw Error(ErrorKind::incompatible,
                "computing the loss: " + std::to_string(batch.labels.size()) + " labels for " +
                    std::to_string(batch.input_ids.size()) + " token ids");
  const std::int64_t shift = model.is_causal ? 1 : 0;
  const std::int64_t count = model.head.is_classifier() ? model.head.num_labels : model.vocab_size;
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const std::int64_t length =
        batch.lengths.empty() ? batch.columns : batch.lengths[static_cast<std::size_t>(row)];
    for (std::int64_t t = 0; t + shift < std::min(length, tokens.time); ++t) {
      const std::int64_t label =
          batch.labels[static_cast<std::size_t>(row * batch.columns + t + shift)];
      if (label == kIgnoredLabel || (shift == 1 && begins_document(batch, row, t + 1))) continue;
      if (label < 0 || label >= count)
        throw Error(ErrorKind::incompatible, "computing the loss: label " + std::to_string(label) +
                                                 ", expected 0 to " + std::to_string(count - 1));
      result.rows.push_back(row * tokens.time + t);
      result.targets.push_back(label);
    }
  }
  return result;
}

}  // namespace lora::engine
