#include <algorithm>
#include <array>
#include <string_view>

#include "lora/adapter/targets.h"

namespace lora {
namespace {

struct DefaultTargets {
  std::string_view model_type;
  std::string_view targets;  ///< separated by spaces
};

// TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING of PEFT 0.21.2, its list entries.
constexpr auto kDefaultTargets = std::to_array<DefaultTargets>({
    {"RefinedWeb", "query_key_value"},
    {"RefinedWebModel", "query_key_value"},
    {"bart", "q_proj v_proj"},
    {"bert", "query value"},
    {"blip-2", "q v q_proj v_proj"},
    {"bloom", "query_key_value"},
    {"btlm", "c_proj c_attn"},
    {"chatglm", "query_key_value"},
    {"codegen", "qkv_proj"},
    {"deberta", "in_proj"},
    {"deberta-v2", "query_proj value_proj"},
    {"electra", "query value"},
    {"falcon", "query_key_value"},
    {"gemma", "q_proj v_proj"},
    {"gemma2", "q_proj v_proj"},
    {"gemma3_text", "q_proj v_proj"},
    {"gpt2", "c_attn"},
    {"gpt_bigcode", "c_attn"},
    {"gpt_neo", "q_proj v_proj"},
    {"gpt_neox", "query_key_value"},
    {"gptj", "q_proj v_proj"},
    {"layoutlm", "query value"},
    {"llama", "q_proj v_proj"},
    {"llama4", "q_proj v_proj"},
    {"mistral", "q_proj v_proj"},
    {"mixtral", "q_proj v_proj"},
    {"mpt", "Wqkv"},
    {"mt5", "q v"},
    {"nemotron_h", "q_proj k_proj v_proj o_proj"},
    {"opt", "q_proj v_proj"},
    {"phi", "q_proj v_proj fc1 fc2"},
    {"qwen2", "q_proj v_proj"},
    {"qwen3", "q_proj v_proj"},
    {"roberta", "query value"},
    {"rwkv", "key value receptance output"},
    {"rwkv7", "r_proj k_proj v_proj o_proj key value"},
    {"stablelm", "q_proj v_proj"},
    {"t5", "q v"},
    {"xlm-roberta", "query value"},
});

// The one entry that is a regular expression.
constexpr std::string_view kRegexModelType = "gemma4";
constexpr std::string_view kRegexTargets = R"(.*language_model\..*\.(q_proj|v_proj))";

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

}  // namespace

std::vector<std::string> default_targets(const std::string& model_type) {
  for (const DefaultTargets& entry : kDefaultTargets)
    if (entry.model_type == model_type) return split_words(entry.targets);
  return {};
}

ModuleSelector default_selector(const std::string& model_type) {
  if (model_type == kRegexModelType) return std::string(kRegexTargets);
  std::vector<std::string> targets = default_targets(model_type);
  if (targets.empty()) return {};
  return targets;
}

}  // namespace lora
