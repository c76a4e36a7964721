// Module trees as Python's named_modules() lists them.
#pragma once

#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// LlamaForCausalLM or MistralForCausalLM of transformers 5.23.
ModuleList decoder_modules(const DecoderConfig& layout, bool is_mistral);

/// GPT2LMHeadModel or GPT2ForSequenceClassification; BertForMaskedLM or
/// BertForSequenceClassification. `config` has gpt2 or bert set.
ModuleList gpt2_modules(const ModelConfig& config);
ModuleList bert_modules(const ModelConfig& config);

/// Modules that own parameters, and their parents, deduced from names and shapes.
ModuleList deduced_modules(const Checkpoint& checkpoint);

}  // namespace lora
