// Module trees as Python's named_modules() lists them.
#pragma once

#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// The causal language model of a decoder family in transformers 5.23. `config` has a layout.
ModuleList decoder_modules(const ModelConfig& config);

/// GPT2LMHeadModel or GPT2ForSequenceClassification. `config` has gpt2 set.
ModuleList gpt2_modules(const ModelConfig& config);

/// ForMaskedLM, ForSequenceClassification or ForTokenClassification of bert and the families of
/// RoBERTa's, and of distilbert. `config` has bert set.
ModuleList bert_modules(const ModelConfig& config);
ModuleList distilbert_modules(const ModelConfig& config);

/// GPTNeoXForCausalLM, or its sequence or token classifier. `config` has gpt_neox set.
ModuleList gpt_neox_modules(const ModelConfig& config);

/// Modules that own parameters, and their parents, deduced from names and shapes.
ModuleList deduced_modules(const Checkpoint& checkpoint);

}  // namespace lora
