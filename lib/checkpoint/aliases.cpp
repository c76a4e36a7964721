#include "checkpoint/aliases.h"

#include <algorithm>
#include <array>

#include "checkpoint/decoder_families.h"
#include "checkpoint/encoder_layout.h"
#include "lora/base/equal_bytes.h"

namespace lora {
namespace {

struct Tie {
  const char* head;    // the name that goes
  const char* source;  // the name that transformers keeps
  // A name that only models with this head have; null: the architecture tells.
  const char* witness = nullptr;
};

// _tied_weights_keys of the families most met; a pair counts only where its source exists.
constexpr std::array<Tie, 13> kTies{{
    {"lm_head.weight", "model.embed_tokens.weight"},
    {"lm_head.weight", "transformer.wte.weight"},
    {"lm_head.weight", "wte.weight"},
    {"lm_head.weight", "embed_tokens.weight"},
    {"lm_head.weight", "shared.weight"},
    {"lm_head.weight", "model.decoder.embed_tokens.weight"},
    {"lm_head.weight", "transformer.word_embeddings.weight"},
    {"lm_head.weight", "gpt_neox.embed_in.weight"},
    {"cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight",
     "cls.predictions.bias"},
    {"cls.predictions.decoder.bias", "cls.predictions.bias", "cls.predictions.bias"},
    {"lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight", "lm_head.bias"},
    {"lm_head.decoder.bias", "lm_head.bias", "roberta.embeddings.word_embeddings.weight"},
    {"vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight",
     "vocab_projector.bias"},
}};

// The source under which a checkpoint of this family would keep a head stored alone.
const char* source_of_lone_head(const std::string& model_type, const std::string& head) {
  for (const Tie& tie : kTies) {
    if (head != tie.head) continue;
    const std::string source = tie.source;
    const bool is_decoder = find_decoder_family(model_type) != nullptr;
    if (is_decoder && source == "model.embed_tokens.weight") return tie.source;
    if (model_type == "gpt_neox" && source == "gpt_neox.embed_in.weight") return tie.source;
    if (model_type == "gpt2" && source == "transformer.wte.weight") return tie.source;
    if (find_encoder_layout(model_type) && tie.witness) return tie.source;
  }
  return nullptr;
}

// A bare encoder or a classifier has no output head to tie.
bool has_head(const Checkpoint& checkpoint, const Tie& tie) {
  if (tie.witness) return checkpoint.tensors.contains(tie.witness);
  const std::string& architecture = checkpoint.config->architecture;
  if (architecture.ends_with("Model")) return architecture.ends_with("LMHeadModel");
  return !architecture.ends_with("Classification") && !architecture.ends_with("Answering");
}

void untie(Checkpoint& checkpoint, const Tie& tie) {
  ModelConfig& config = *checkpoint.config;
  config.tie_word_embeddings = false;
  if (config.layout) config.layout->tie_word_embeddings = false;
  if (config.decoder) config.decoder->tie_word_embeddings = false;
  if (config.gpt2) config.gpt2->tie_word_embeddings = false;
  if (config.bert) config.bert->tie_word_embeddings = false;
  if (config.gpt_neox) config.gpt_neox->tie_word_embeddings = false;
  checkpoint.notes.push_back("config.json ties " + std::string(tie.head) + " to " + tie.source +
                             ", but their values differ: both are kept and not tied, as "
                             "transformers does");
}

void move_lone_head(Checkpoint& checkpoint, const std::string& head, const std::string& source) {
  auto node = checkpoint.tensors.extract(head);
  node.key() = source;
  checkpoint.tensors.insert(std::move(node));
  for (auto& [alias, canonical] : checkpoint.aliases)
    if (canonical == head) canonical = source;
  checkpoint.aliases[head] = source;
}

// transformers 5 calls GPT-NeoX's head lm_head and keeps the older name in files.
void name_old_head(Checkpoint& checkpoint) {
  constexpr const char* kOld = "embed_out.weight";
  constexpr const char* kNew = "lm_head.weight";
  if (checkpoint.config->model_type != "gpt_neox" || !checkpoint.tensors.contains(kOld) ||
      checkpoint.tensors.contains(kNew))
    return;
  checkpoint.aliases[kNew] = kOld;
}

}  // namespace

std::string canonical_name(const std::vector<std::string>& names) {
  const auto contains = [&](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const Tie& tie : kTies)
    if (contains(tie.source) && contains(tie.head)) return tie.source;
  if (contains("shared.weight")) return "shared.weight";
  return *std::min_element(names.begin(), names.end());
}

bool is_known_tie(const std::string& head, const std::string& source) {
  return std::any_of(kTies.begin(), kTies.end(),
                     [&](const Tie& tie) { return head == tie.head && source == tie.source; });
}

void apply_ties(Checkpoint& checkpoint) {
  if (!checkpoint.config) return;
  name_old_head(checkpoint);
  if (!checkpoint.config->tie_word_embeddings) return;
  TensorMap& tensors = checkpoint.tensors;
  for (const Tie& tie : kTies) {
    if (checkpoint.aliases.contains(tie.head)) continue;
    const auto source = tensors.find(tie.source);
    const auto head = tensors.find(tie.head);
    if (source == tensors.end()) {
      const char* name = source_of_lone_head(checkpoint.config->model_type, tie.head);
      if (head != tensors.end() && name != nullptr && std::string_view(name) == tie.source)
        move_lone_head(checkpoint, tie.head, tie.source);
      continue;
    }
    if (head == tensors.end()) {
      if (has_head(checkpoint, tie)) checkpoint.aliases[tie.head] = tie.source;
    } else if (has_equal_bytes(head->second, source->second)) {
      tensors.erase(head);
      checkpoint.aliases[tie.head] = tie.source;
    } else {
      untie(checkpoint, tie);
    }
  }
}

void restore_aliases(Checkpoint& checkpoint, const std::map<std::string, std::string>& recorded) {
  for (const auto& [alias, canonical] : recorded)
    if (checkpoint.tensors.contains(canonical) && !checkpoint.tensors.contains(alias))
      checkpoint.aliases.emplace(alias, canonical);
}

}  // namespace lora
