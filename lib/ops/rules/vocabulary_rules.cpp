#include <algorithm>
#include <map>
#include <set>

#include "lora/base/equal_bytes.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"
#include "ops/rules/tokenizer_size.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

constexpr std::string_view kWeight = ".weight";

const ModuleInfo* find_module(const Subject& subject, bool (*accepts)(const ModuleInfo&)) {
  const auto found =
      std::find_if(subject.base_modules.begin(), subject.base_modules.end(), accepts);
  return found == subject.base_modules.end() ? nullptr : &*found;
}

const ModuleInfo* input_embedding(const Subject& subject) {
  return find_module(subject, [](const ModuleInfo& module) {
    return module.kind == LayerKind::embedding &&
           module.module_path.find("position") == std::string::npos &&
           !module.module_path.ends_with("wpe");
  });
}

const ModuleInfo* output_head(const Subject& subject) {
  return find_module(subject, [](const ModuleInfo& module) { return module.is_output_head; });
}

bool ensures_tying(const AdapterConfig& config) {
  const Json* field = config.other.find("ensure_weight_tying");
  return field != nullptr && field->as_bool() == true;
}

// How an adapter changes one matrix of the base: "LoRA on lm_head".
std::string change_of(const Adapter& adapter, const std::string& path) {
  if (adapter.find(path) != nullptr) return "LoRA on " + path;
  if (adapter.replacements.contains(path + std::string(kWeight))) return "a copy of " + path;
  return {};
}

void tied_embedding(const Subject& subject, Report& report) {
  if (subject.base == nullptr || !subject.base->config ||
      !subject.base->config->tie_word_embeddings)
    return;
  const ModuleInfo* embedding = input_embedding(subject);
  const ModuleInfo* head = output_head(subject);
  if (embedding == nullptr || head == nullptr) return;
  const Adapter& adapter = subject.adapter;
  const std::string at_embedding = change_of(adapter, embedding->module_path);
  const std::string at_head = change_of(adapter, head->module_path);
  if (at_embedding.empty() && at_head.empty()) return;
  const std::string tied =
      "the base ties " + embedding->module_path + " and " + head->module_path + "; ";
  if (ensures_tying(adapter.config)) {
    report.add(tied + "this adapter keeps them tied (ensure_weight_tying): its update counts once",
               {.tensor = {},
                .module = embedding->module_path,
                .hint = "PEFT's merge adds it twice; merge with lora",
                .severity = Severity::note});
    return;
  }
  const auto first = adapter.replacements.find(embedding->module_path + std::string(kWeight));
  const auto second = adapter.replacements.find(head->module_path + std::string(kWeight));
  const bool are_equal_copies = first != adapter.replacements.end() &&
                                second != adapter.replacements.end() &&
                                has_equal_bytes(first->second, second->second);
  // A saved matrix that is the base's own changes neither.
  const auto is_untouched = [&](const auto& copy) {
    if (copy == adapter.replacements.end()) return true;
    const Tensor* original = subject.base->find(copy->first);
    return original != nullptr && has_equal_bytes(*original, copy->second);
  };
  if (adapter.find(embedding->module_path) == nullptr &&
      adapter.find(head->module_path) == nullptr &&
      (are_equal_copies || (is_untouched(first) && is_untouched(second))))
    return;
  const std::string what = at_embedding.empty() ? "only " + at_head
                           : at_head.empty()    ? "only " + at_embedding
                                             : at_embedding + " and " + at_head + ", differently";
  report.add(tied + "this adapter changes " + what + ": a plain merge changes both",
             {.tensor = {},
              .module = at_embedding.empty() ? head->module_path : embedding->module_path,
              .hint = {},
              .severity = {}});
}

// Rows that the adapter has tokens for and the table has not.
std::set<std::int64_t> rows_beyond(const Adapter& adapter, const std::string& module_path,
                                   std::int64_t rows) {
  std::set<std::int64_t> beyond;
  for (const TokenRows& tokens : adapter.tokens)
    for (const std::int64_t index : tokens.indices)
      if (tokens.module_path == module_path && index >= rows) beyond.insert(index);
  return beyond;
}

// How many tokens the adapter adds to the vocabulary: it brings every row behind the end of the
// embedding, and of a head of its own. 0 where rows would be missing.
std::int64_t added_tokens(const Subject& subject) {
  const ModuleInfo* embedding = input_embedding(subject);
  const ModuleInfo* head = output_head(subject);
  if (embedding == nullptr) return 0;
  const std::int64_t rows = embedding->in_features;
  const auto beyond = rows_beyond(subject.adapter, embedding->module_path, rows);
  const auto count = static_cast<std::int64_t>(beyond.size());
  if (count == 0 || *beyond.rbegin() != rows + count - 1) return 0;
  const bool is_tied =
      head == nullptr || subject.base->aliases.contains(head->module_path + std::string(kWeight));
  return is_tied || rows_beyond(subject.adapter, head->module_path, rows) == beyond ? count : 0;
}

void vocabulary(const Subject& subject, Report& report) {
  if (subject.base == nullptr) return;
  const Adapter& adapter = subject.adapter;
  const std::int64_t added = added_tokens(subject);
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> rows;  // adapter's, base's
  const auto compare = [&](const std::string& name, std::int64_t found, std::int64_t expected) {
    if (found != expected) rows[name] = {found, expected};
  };
  for (const ModuleInfo& info : subject.base_modules) {
    if (info.kind != LayerKind::embedding && !info.is_output_head) continue;
    const std::int64_t expected =
        info.kind == LayerKind::embedding ? info.in_features : info.out_features;
    if (expected <= 0) continue;
    const auto copy = adapter.replacements.find(info.module_path + std::string(kWeight));
    if (copy != adapter.replacements.end() && copy->second.shape.size() == 2)
      compare(copy->first, copy->second.shape[0], expected);
    if (const LoraModule* site = adapter.find(info.module_path)) {
      if (site->kind == LayerKind::embedding)
        compare(info.module_path + ".lora_embedding_A", site->a.shape[1], expected);
      else if (info.is_output_head)
        compare(info.module_path + ".lora_B", site->b.shape[0], expected);
    }
    for (const TokenRows& tokens : adapter.tokens) {
      if (tokens.module_path != info.module_path || tokens.indices.empty()) continue;
      const std::int64_t last = *std::max_element(tokens.indices.begin(), tokens.indices.end());
      if (last >= expected + added)
        compare("trainable_token_indices of " + info.module_path, last + 1, expected);
    }
  }
  Names table;
  for (const auto& [name, counts] : rows)
    table.push_back(name + " expects " + std::to_string(counts.first) + " rows, base has " +
                    std::to_string(counts.second));
  if (!table.empty()) {
    report.add("vocabularies differ: " + report.list(table));
    return;
  }
  const ModuleInfo* embedding = input_embedding(subject);
  if (added > 0) {
    const std::string size = std::to_string(embedding->in_features + added);
    report.add("the adapter adds " + counted(static_cast<std::size_t>(added), "token") +
                   " to the vocabulary of the base",
               {.tensor = {},
                .module = embedding->module_path,
                .hint = "PEFT needs model.resize_token_embeddings(" + size +
                        ") in front of it; lora load resizes by itself",
                .severity = Severity::note});
  }
  const auto beside = tokenizer_size(adapter.directory());
  if (!beside || embedding == nullptr || *beside <= embedding->in_features + added) return;
  report.add(
      "the tokenizer beside the adapter has " + std::to_string(*beside) +
          " tokens, the base's embedding " + std::to_string(embedding->in_features) +
          " rows, and the adapter brings no others",
      {.tensor = {}, .module = embedding->module_path, .hint = {}, .severity = Severity::warning});
}

void token_rows(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  for (const TokenRows& tokens : adapter.tokens) {
    const auto add = [&](std::string message) {
      report.add(std::move(message), {.tensor = "base_model.model." + tokens.module_path +
                                                ".token_adapter.trainable_tokens_delta",
                                      .module = tokens.module_path,
                                      .hint = {},
                                      .severity = {}});
    };
    const std::string where = tokens.module_path + ": ";
    const std::size_t count = tokens.indices.size();
    if (tokens.rows.shape.empty() || static_cast<std::size_t>(tokens.rows.shape[0]) != count)
      add(where + "token rows of shape " + shape_to_string(tokens.rows.shape) + " for " +
          std::to_string(count) + " trainable_token_indices");
    if (std::set<std::int64_t>(tokens.indices.begin(), tokens.indices.end()).size() != count)
      add(where + "trainable_token_indices name a row more than once");
    if (adapter.replacements.contains(tokens.module_path + std::string(kWeight)) &&
        std::any_of(adapter.config.modules_to_save.begin(), adapter.config.modules_to_save.end(),
                    [&](const std::string& entry) { return tokens.module_path.ends_with(entry); }))
      add(where + "is in modules_to_save and has trainable tokens; PEFT refuses both at once");
    for (const ModuleInfo& info : subject.base_modules) {
      if (info.module_path != tokens.module_path || tokens.rows.shape.size() != 2) continue;
      // A head has a row a token too; its width is that of its inputs.
      const std::int64_t width =
          info.kind == LayerKind::linear ? info.in_features : info.out_features;
      if (width > 0 && tokens.rows.shape[1] != width)
        add(where + "token rows are " + std::to_string(tokens.rows.shape[1]) +
            " wide, the base's " + std::to_string(width));
    }
  }
  const Json* field = adapter.config.other.find("trainable_token_indices");
  const bool asks = field != nullptr && ((field->as_array() && !field->as_array()->empty()) ||
                                         (field->as_object() && !field->as_object()->empty()));
  // With a base key-missing counts them.
  if (asks && adapter.tokens.empty() && !subject.accounting)
    report.add("trainable_token_indices is set and the file has no token rows");
}

}  // namespace

const std::vector<Rule>& vocabulary_rules() {
  static const std::vector<Rule> rules{
      {{"LV315", "tied-embedding-hazard", Severity::warning,
        "what the adapter changes where the base ties embedding and head",
        "Embedding and head are one matrix in the base: a merge changes both, or one is lost when "
        "the model is tied again on loading (a note with ensure_weight_tying).",
        "merge with lora, which unties them and writes both matrices"},
       tied_embedding},
      {{"LV316", "vocab-mismatch", Severity::error,
        "rows of embeddings, heads, lora_embedding_A, token indices and the tokenizer beside the "
        "adapter against the base",
        "The vocabulary was resized in training (a warning when only the tokenizer says so, a note "
        "when the adapter brings every new row).",
        "resize the base in the same way, or drop the embedding part"},
       vocabulary},
      {{"LV317", "trainable-tokens-mismatch", Severity::error,
        "token rows against trainable_token_indices and the base's embedding",
        "Which row belongs to which token cannot be told, or PEFT refuses the combination.",
        "restore adapter_config.json and weights from one save"},
       token_rows},
  };
  return rules;
}

}  // namespace lora::rules
