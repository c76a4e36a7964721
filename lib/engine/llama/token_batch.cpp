#include "engine/llama/token_batch.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ne.h>

#include <algorithm>

#include "engine/bridge.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

void check_ids(const std::vector<std::int64_t>& ids, const DecoderConfig& config) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config.vocab_size)
      throw Error(ErrorKind::incompatible, "running the model: token id " + std::to_string(ids[i]) +
                                               " at position " + std::to_string(i) +
                                               ", expected 0 to " +
                                               std::to_string(config.vocab_size - 1))
          .in_tensor("input_ids");
}

std::vector<std::uint8_t> read_mask(const Tensor& tensor, const Tensor& ids) {
  if (tensor.shape != ids.shape)
    throw Error(ErrorKind::incompatible, "running the model: attention_mask has shape " +
                                             shape_to_string(tensor.shape) + ", expected " +
                                             shape_to_string(ids.shape))
        .in_tensor("attention_mask");
  const at::Tensor present = view_of(tensor).ne(0).contiguous();
  const bool* values = present.const_data_ptr<bool>();
  std::vector<std::uint8_t> mask(values, values + present.numel());
  if (std::find(mask.begin(), mask.end(), 0) == mask.end()) mask.clear();
  return mask;
}

}  // namespace

void check_positions(std::int64_t positions, const DecoderConfig& config) {
  if (positions <= config.max_position_embeddings) return;
  throw Error(ErrorKind::incompatible, "running the model: " + std::to_string(positions) +
                                           " positions, expected at most its " +
                                           std::to_string(config.max_position_embeddings));
}

TokenBatch read_tokens(const TensorMap& inputs, const DecoderConfig& config) {
  for (const auto& [name, tensor] : inputs)
    if (name != "input_ids" && name != "attention_mask")
      throw Error(ErrorKind::incompatible, "running the model: found the input " + name +
                                               ", expected input_ids and attention_mask")
          .in_tensor(name);
  const auto ids = inputs.find("input_ids");
  if (ids == inputs.end())
    throw Error(ErrorKind::incompatible, "running the model: there are no input_ids");
  const Tensor& tensor = ids->second;
  if (tensor.dtype != DType::i64 || tensor.shape.size() != 2 || tensor.numel() == 0)
    throw Error(ErrorKind::incompatible,
                "running the model: input_ids are " + std::string(to_string(tensor.dtype)) + " " +
                    shape_to_string(tensor.shape) + ", expected I64 [batch, seq]")
        .in_tensor("input_ids");
  TokenBatch result;
  result.batch = tensor.shape[0];
  result.time = tensor.shape[1];
  check_positions(result.time, config);
  const at::Tensor view = view_of(tensor);
  const auto* values = view.const_data_ptr<std::int64_t>();
  result.ids.assign(values, values + view.numel());
  check_ids(result.ids, config);
  const auto mask = inputs.find("attention_mask");
  if (mask != inputs.end()) result.mask = read_mask(mask->second, tensor);
  return result;
}

TokenBatch read_tokens(const Batch& batch, const DecoderConfig& config) {
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
  check_positions(result.time, config);
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const auto first = batch.input_ids.begin() + row * batch.columns;
    result.ids.insert(result.ids.end(), first, first + result.time);
  }
  check_ids(result.ids, config);
  return result;
}

Supervision read_labels(const Batch& batch, const TokenBatch& tokens, const DecoderConfig& config) {
  Supervision result;
  if (batch.labels.size() != batch.input_ids.size())
    throw Error(ErrorKind::incompatible,
                "computing the loss: " + std::to_string(batch.labels.size()) + " labels for " +
                    std::to_string(batch.input_ids.size()) + " token ids");
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const std::int64_t length =
        batch.lengths.empty() ? batch.columns : batch.lengths[static_cast<std::size_t>(row)];
    for (std::int64_t t = 0; t + 1 < std::min(length, tokens.time); ++t) {
      const std::int64_t label =
          batch.labels[static_cast<std::size_t>(row * batch.columns + t + 1)];
      if (label == kIgnoredLabel) continue;
      if (label < 0 || label >= config.vocab_size)
        throw Error(ErrorKind::incompatible, "computing the loss: label " + std::to_string(label) +
                                                 ", expected 0 to " +
                                                 std::to_string(config.vocab_size - 1));
      result.rows.push_back(row * tokens.time + t);
      result.targets.push_back(label);
    }
  }
  return result;
}

}  // namespace lora::engine
