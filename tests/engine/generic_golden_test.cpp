#include "golden_case.h"
//
#include "engine/generic/generic_model.h"
#include "engine/llama/llama_model.h"

namespace lora {
namespace {

using testing::GoldenCase;
using testing::largest_difference;
using testing::logits_of;

constexpr double kLogitTolerance = 2e-5;
const std::vector<std::string> kCases{
    "gpt2_plain",          "gpt2_dora",         "gpt2_tokens",           "gpt2_classifier",
    "bert_classifier",     "bert_dora",         "bert_language",         "bert_tokens",
    "llama_dora",          "llama_tokens",      "llama_embedding",       "llama_tied",
    "roberta_classifier",  "roberta_language",  "bert_token_classifier", "xlm_roberta_tokens",
    "distilbert_language", "distilbert_tokens", "distilbert_classifier", "camembert_values",
    "gpt_neox_plain",      "gpt_neox_serial",   "gpt_neox_classifier",   "gpt_neox_tokens"};

const std::vector<std::string> kDecoders{
    "mistral", "qwen2",     "qwen2_window", "qwen3", "gemma",   "gemma2",    "gemma3",
    "phi3",    "phi3_long", "granite",      "olmo2", "mixtral", "qwen2_moe", "qwen3_moe"};

std::vector<std::string> with_decoders(std::vector<std::string> names) {
  for (const std::string& name : kDecoders) names.push_back("decoder_" + name);
  return names;
}

// Logits where they mean something. A padded position that sees no key gets zeros from fused
// attention and the mean of all values from the plain one that transformers runs under soft caps.
at::Tensor present(const GoldenCase& golden, const at::Tensor& logits) {
  const auto& decoder = golden.base.config->decoder;
  if (!decoder || decoder->attention_softcap == 0) return logits;
  return logits.mul(golden.value("attention_mask").unsqueeze(2));
}

// The fast step knows plain LoRA on linear layers only.
void keep_plain_lora(Adapter& adapter) {
  std::erase_if(adapter.modules,
                [](const LoraModule& module) { return module.kind == LayerKind::embedding; });
  for (LoraModule& module : adapter.modules) module.magnitude.reset();
  adapter.tokens.clear();
  std::erase_if(adapter.tensors, [](const auto& entry) {
    const KeyRole role = parse_key(entry.first).role;
    return role != KeyRole::lora_a && role != KeyRole::lora_b && role != KeyRole::base_layer;
  });
}

bool is_trainable(const std::string& name) { return name != "llama_tied"; }

TEST_CASE("logits of every family with every kind of LoRA equal PEFT's", "[engine]") {
  for (const std::string& name : with_decoders(kCases)) {
    INFO(name);
    const GoldenCase golden(name);
    const at::Tensor bare = logits_of(*golden.bare(), golden.masked_inputs());
    const at::Tensor expected = present(golden, golden.value("logits"));
    CHECK(largest_difference(present(golden, bare), expected) < kLogitTolerance);
    for (const bool trainable : {false, true}) {
      if (trainable && !is_trainable(name)) continue;
      const auto model = golden.adapted(trainable);
      CHECK(largest_difference(logits_of(*model, golden.masked_inputs()),
                               golden.value("adapted_logits")) < kLogitTolerance);
      model->enable_adapters(false);
      // A bare decoder may run on the other back end.
      const at::Tensor off = logits_of(*model, golden.masked_inputs());
      if (golden.base.config->decoder)
        CHECK(largest_difference(present(golden, off), expected) < kLogitTolerance);
      else
        CHECK(off.equal(bare));
    }
  }
}

TEST_CASE("token types reach the embeddings of bert and roberta", "[engine]") {
  for (const std::string name : {"bert_classifier", "bert_language", "roberta_language"}) {
    INFO(name);
    const GoldenCase golden(name);
    TensorMap inputs = golden.masked_inputs();
    inputs["token_type_ids"] = golden.expected.at("token_type_ids");
    const at::Tensor logits = logits_of(*golden.bare(), inputs);
    CHECK(largest_difference(logits, golden.value("typed_logits")) < kLogitTolerance);
    CHECK(largest_difference(logits, golden.value("logits")) > 1e-3);
  }
}

TEST_CASE("loss and gradients of every kind of LoRA equal PEFT's", "[engine]") {
  for (const std::string& name : with_decoders(kCases)) {
    if (!is_trainable(name)) continue;
    for (const bool checkpointing : {false, true}) {
      INFO(name << (checkpointing ? " with" : " without") << " checkpointing");
      const GoldenCase golden(name);
      const auto model = golden.adapted(true);
      model->set_layer_checkpointing(checkpointing);
      const engine::Batch batch = golden.batch();
      const double loss = golden.value("loss").item<double>();
      const engine::LossSum evaluated = model->loss(batch);
      CHECK(evaluated.count == engine::supervised_count(batch));
      const double scale = 1.0 / static_cast<double>(evaluated.count);
      CHECK(std::abs(evaluated.sum * scale - loss) < 1e-5 * loss);
      const engine::LossSum result = model->loss_and_gradients(batch, scale, {});
      CHECK(std::abs(result.sum * scale - loss) < 1e-5 * loss);
      testing::check_gradients(golden, model->trainable(), "grad.", 1e-4);
    }
  }
}

// Values as loss_and_gradients leaves them, with LoRA dropout drawn for one step.
struct Step {
  engine::LossSum loss;
  at::Tensor logits, gradients;
};

Step step_of(engine::Model& model, const GoldenCase& golden) {
  Step step;
  step.logits = logits_of(model, golden.masked_inputs());
  const engine::StepContext context{11, 3, 1};
  step.loss = model.loss_and_gradients(golden.batch(), 0.05, context);
  step.gradients = model.trainable().gradients.clone();
  return step;
}

TEST_CASE("the generic decoder and the fast one agree, dropout included", "[engine]") {
  std::vector<std::string> names =
      with_decoders({"llama_plain", "llama_scaled", "llama_saved", "llama_upper"});
  std::erase_if(names, [](const std::string& name) {
    return name.ends_with("mixtral") || name.ends_with("_moe");
  });
  for (const std::string& name : names) {
    for (const double dropout : {0.0, 0.25}) {
      INFO(name << " with dropout " << dropout);
      GoldenCase golden(name);
      keep_plain_lora(golden.adapter);
      golden.adapter.config.dropout = dropout;
      DecoderConfig& decoder = *golden.base.config->decoder;
      decoder.attention_dropout = decoder.residual_dropout = 0;
      if (decoder.activation == "gelu") decoder.activation = "gelu_pytorch_tanh";
      decoder.pad_token_id = golden.integers("input_ids").at(4);
      const ModelOptions options = golden.options(true);
      REQUIRE(!engine::needs_generic(options));
      REQUIRE(engine::has_fast_step(decoder));
      const Step fast = step_of(*engine::make_model(options), golden);
      const auto generic = engine::make_generic(options, engine::make_decoder_network(options));
      const Step slow = step_of(*generic, golden);
      CHECK(testing::relative_distance(present(golden, slow.logits), present(golden, fast.logits)) <
            1e-6);
      CHECK(std::abs(slow.loss.sum - fast.loss.sum) < 1e-5 * fast.loss.sum);
      CHECK(testing::relative_distance(slow.gradients, fast.gradients) < 1e-5);
    }
  }
}

TEST_CASE("gradients accumulate, and a repeated step gives the same bytes", "[engine]") {
  for (const std::string name : {"gpt2_dora", "bert_classifier", "llama_tokens"}) {
    INFO(name);
    const GoldenCase golden(name);
    const auto model = golden.adapted(true);
    model->loss_and_gradients(golden.batch(), 0.5, {});
    const at::Tensor once = model->trainable().gradients.clone();
    CHECK(once.abs().max().item<double>() > 0);
    model->loss_and_gradients(golden.batch(), 0.5, {});
    CHECK(largest_difference(model->trainable().gradients, once.mul(2)) < 1e-5);
    model->trainable().gradients.zero_();
    model->loss_and_gradients(golden.batch(), 0.5, {});
    CHECK(model->trainable().gradients.equal(once));
  }
}

}  // namespace
}  // namespace lora
