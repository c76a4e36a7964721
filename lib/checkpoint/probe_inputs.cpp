#include "lora/checkpoint/probe_inputs.h"

#include <algorithm>
#include <optional>

#include "lora/base/error.h"
#include "lora/base/random.h"

namespace lora {
namespace {

constexpr std::int64_t kRows = 4;
constexpr std::int64_t kTokens = 16;
constexpr const char* kStream = "lora.probe/2";

std::optional<std::int64_t> positive_field(const Json& document,
                                           std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const Json* field = document.find(name);
    const auto value = field ? field->as_int() : std::nullopt;
    if (value && *value > 0) return value;
  }
  return std::nullopt;
}

// A classifier that reads the last token takes one row at a time while it knows no padding.
std::int64_t rows_for(const ModelConfig& config) {
  const auto knows_padding = [](const auto& model) {
    return model->head.kind != HeadConfig::Kind::sequence_classification || model->pad_token_id;
  };
  if (config.gpt2) return knows_padding(config.gpt2) ? kRows : 1;
  if (config.gpt_neox) return knows_padding(config.gpt_neox) ? kRows : 1;
  return kRows;
}

TensorMap token_inputs(const CounterRandom& random, std::int64_t rows, std::int64_t vocabulary,
                       std::int64_t positions) {
  const std::int64_t columns = std::min(kTokens, positions);
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < rows * columns; ++i)
    ids.push_back(static_cast<std::int64_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(vocabulary))));
  return {{"input_ids", Tensor::from_i64({rows, columns}, ids)}};
}

}  // namespace

TensorMap probe_inputs(const Checkpoint& base) {
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorKind::unsupported, "cannot choose an input for " + base.path.string() +
                                             ": found " + why +
                                             ", expected a language model, an encoder or an mlp")
        .in_file(base.path.string());
  };
  if (!base.config) throw refuse("no configuration");
  const ModelConfig& config = *base.config;
  const CounterRandom random(0, stream_of(kStream));
  if (config.mlp) {
    const std::int64_t features = config.mlp->hidden_sizes.front();
    std::vector<float> values;
    for (std::int64_t i = 0; i < kRows * features; ++i)
      values.push_back(static_cast<float>(random.normal(static_cast<std::uint64_t>(i))));
    return {{"x", Tensor::from_f32({kRows, features}, values)}};
  }
  if (const auto tokens = config.token_model())
    return token_inputs(random, rows_for(config), tokens->vocab_size, tokens->max_positions);
  const auto vocabulary = positive_field(config.document, {"vocab_size"});
  if (!vocabulary) throw refuse("model_type " + config.model_type + " without a vocab_size");
  const auto positions =
      positive_field(config.document, {"max_position_embeddings", "n_positions", "n_ctx"});
  return token_inputs(random, kRows, *vocabulary, positions.value_or(kTokens));
}

}  // namespace lora
