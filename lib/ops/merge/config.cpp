#include "ops/merge/config.h"

#include <array>
#include <string_view>

#include "ops/init_base_plan.h"

namespace lora::merging {
namespace {

// "Llama" of LlamaForCausalLM.
std::string family_of(const std::string& architecture) {
  constexpr std::array<std::string_view, 4> kEndings{"ForCausalLM", "ForMaskedLM", "LMHeadModel",
                                                     "Model"};
  for (const std::string_view ending : kEndings)
    if (architecture.ends_with(ending))
      return architecture.substr(0, architecture.size() - ending.size());
  return {};
}

std::string_view classifier_of(const Adapter& adapter) {
  if (adapter.config.task_type == "SEQ_CLS") return "ForSequenceClassification";
  if (adapter.config.task_type == "TOKEN_CLS") return "ForTokenClassification";
  return {};
}

std::optional<std::int64_t> labels_of(const Json& document) {
  const Json* names = document.find("id2label");
  if (names == nullptr || names->as_object() == nullptr) return std::nullopt;
  return static_cast<std::int64_t>(names->as_object()->size());
}

// transformers reads the number of labels off their names, and takes 2 where there are none.
std::string with_labels(std::string text, std::int64_t count) {
  if (labels_of(parse_json(text, "config.json")).value_or(2) == count) return text;
  JsonObject names, numbers;
  for (std::int64_t i = 0; i < count; ++i) {
    names[std::to_string(i)] = "LABEL_" + std::to_string(i);
    numbers["LABEL_" + std::to_string(i)] = i;
  }
  text = with_config_member(text, "id2label", dump_json(names));
  return with_config_member(text, "label2id", dump_json(numbers));
}

// A head that is new to the base makes the model another class.
std::string with_class(std::string text, const Checkpoint& base,
                       const std::vector<const Adapter*>& adapters, const Layout& layout,
                       std::vector<std::string>& notes) {
  for (const Adapter* adapter : adapters)
    for (const std::string& name : layout.added) {
      if (!adapter->replacements.contains(name)) continue;
      const std::string family = family_of(base.config->architecture);
      const std::string_view ending = classifier_of(*adapter);
      const Tensor& head = adapter->replacements.at(name);
      if (family.empty() || ending.empty() || head.shape.size() != 2) continue;
      const std::string architecture = family + std::string(ending);
      text = with_config_member(text, "architectures", dump_json(JsonArray{architecture}));
      text = with_labels(std::move(text), head.shape[0]);
      notes.push_back("config.json names " + architecture + " with " +
                      std::to_string(head.shape[0]) + " labels for the head " + name);
      return text;
    }
  if (!layout.added.empty())
    notes.push_back("config.json still describes the base's own class, which has no " +
                    layout.added.front());
  return text;
}

}  // namespace

SideFiles make_config(const Checkpoint& base, const std::vector<const Adapter*>& adapters,
                      const Layout& layout, std::optional<DType> dtype,
                      std::vector<std::string>& notes) {
  SideFiles files;
  if (!base.config) {
    notes.push_back("the base has no config.json, and so has the output");
    return files;
  }
  std::string text = config_text_of(base, dtype, false);
  if (!layout.untied.empty()) text = with_config_member(text, "tie_word_embeddings", "false");
  if (layout.is_tied_again) text = with_config_member(text, "tie_word_embeddings", "true");
  if (layout.vocabulary)
    text = with_config_member(text, "vocab_size", std::to_string(*layout.vocabulary));
  if (layout.labels) text = with_labels(std::move(text), *layout.labels);
  files.config = with_class(std::move(text), base, adapters, layout, notes);
  files.carried = carried_files(base.directory);
  if (!layout.vocabulary) return files;
  // More rows mean more tokens; the tokenizer that knows them lies beside the adapter.
  for (const Adapter* adapter : adapters)
    for (const std::filesystem::path& file : carried_files(adapter->directory())) {
      std::erase_if(files.carried, [&](const std::filesystem::path& other) {
        return other.filename() == file.filename();
      });
      files.carried.push_back(file);
    }
  return files;
}

}  // namespace lora::merging
