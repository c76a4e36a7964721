#include "ops/base_evidence.h"

#include <algorithm>
#include <system_error>

#include "lora/base/error.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "ops/layer_number.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

namespace fs = std::filesystem;
using Subject = BaseDifference::Subject;

// "organisation/model", and not a path: those start with a slash, a point or a drive.
bool is_hub_id(const std::string& name) {
  return std::count(name.begin(), name.end(), '/') == 1 && name.front() != '/' &&
         name.front() != '.' && name.front() != '~' && name.back() != '/';
}

bool is_commit(const std::string& revision) {
  return revision.size() == 40 &&
         revision.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string text_of(const Json& document, std::string_view member) {
  const Json* value = document.find(member);
  return value != nullptr && value->is_string() ? *value->as_string() : "";
}

class Comparison {
 public:
  Comparison(const Adapter& adapter, const std::optional<Manifest>& manifest,
             const Checkpoint& base, const std::optional<ResolvedTargets>& targets)
      : adapter_(adapter), manifest_(manifest), base_(base), targets_(targets) {}

  BaseEvidence run() {
    compare_names();
    if (base_.config) {
      compare_family();
      compare_task();
    }
    compare_layers();
    compare_tokenizer();
    compare_chat_template();
    return std::move(evidence_);
  }

 private:
  void agree(std::string what) { evidence_.agreeing.push_back(std::move(what)); }
  void differ(Subject subject, std::string message, bool is_certain = false) {
    evidence_.differing.push_back({subject, std::move(message), is_certain});
  }

  void compare_names() {
    const std::string named = adapter_.config.base_model_name_or_path.value_or("");
    const BaseName given = name_of_base(base_);
    if (named.empty()) return;
    std::error_code ignored;
    if (named == given.id) {
      agree("name");
      compare_revisions(given);
    } else if (!base_.directory.empty() && fs::equivalent(named, base_.directory, ignored)) {
      agree("path");
    } else if (is_hub_id(named) && is_hub_id(given.id.empty() ? "-" : given.id)) {
      differ(Subject::name,
             "the adapter names the base " + named + ", the given one is " + given.id);
    } else if (const std::string source = source_name();
               is_hub_id(named) && !source.empty() && source != named) {
      differ(Subject::name, "the adapter names the base " + named +
                                ", the given one says in config.json that it comes from " + source);
    }
  }

  // A model saved after loading NAME says so; a tuned copy says it of its own base too, so that an
  // equal name is no evidence.
  std::string source_name() const {
    if (!base_.config) return "";
    const std::string source = text_of(base_.config->document, "_name_or_path");
    return !source.empty() && is_hub_id(source) ? source : "";
  }

  void compare_revisions(const BaseName& given) {
    const std::string recorded = adapter_.config.revision.value_or("");
    if (!is_commit(recorded) || !is_commit(given.revision)) return;
    if (recorded == given.revision) {
      agree("revision");
    } else {
      differ(Subject::revision, "the adapter names revision " + recorded + " of " + given.id +
                                    ", the given one is " + given.revision);
    }
  }

  // auto_mapping.parent_library is "transformers.models.FAMILY.modeling_FAMILY".
  void compare_family() {
    const std::string library = text_of(adapter_.config.auto_mapping, "parent_library");
    constexpr std::string_view kStart = "transformers.models.";
    if (!library.starts_with(kStart)) return;
    const auto end = library.find('.', kStart.size());
    const std::string family = library.substr(kStart.size(), end - kStart.size());
    std::string type = base_.config->model_type;
    std::replace(type.begin(), type.end(), '-', '_');
    if (type.empty() || family.empty()) return;
    // qwen2_5_vl_text lives in qwen2_5_vl, llama4_text in llama4.
    if (type == family || type.starts_with(family + "_")) {
      agree("architecture");
    } else {
      differ(Subject::architecture, "the adapter was made on " +
                                        text_of(adapter_.config.auto_mapping, "base_model_class") +
                                        " of " + library + ", the base is a " +
                                        base_.config->model_type);
    }
  }

  void compare_task() {
    const std::string task = adapter_.config.task_type.value_or("");
    const Json* flag = base_.config->document.find("is_encoder_decoder");
    const bool has_encoder = flag != nullptr && flag->as_bool().value_or(false);
    if (task == "SEQ_2_SEQ_LM" && !has_encoder && !base_.config->architecture.empty())
      differ(Subject::architecture, "the adapter is for the task SEQ_2_SEQ_LM, and " +
                                        base_.config->architecture + " has no encoder and decoder");
  }

  void compare_layers() {
    // The layers of one may stand under the name of another.
    if (!targets_ || !adapter_.others.empty()) return;
    std::vector<std::string> adapted, targeted;
    for (const LoraModule& module : adapter_.modules) adapted.push_back(module.module_path);
    for (const ModuleInfo& info : targets_->lora) targeted.push_back(info.module_path);
    const auto last = last_layer(adapted);
    const auto last_in_base = last_layer(targeted);
    if (!last || !last_in_base) return;
    if (*last == *last_in_base) {
      agree("number of layers");
    } else if (!is_told_by_configuration(*last > *last_in_base)) {
      differ(Subject::architecture,
             "the adapter covers " + std::to_string(*last + 1) + " layers, the base has " +
                 std::to_string(*last_in_base + 1) + " that the configuration targets",
             true);
    }
  }

  // A configuration that leaves layers out, or asks for more than the file has, says nothing about
  // the base: key-unexpected and key-missing report it.
  bool is_told_by_configuration(bool adapter_has_more) const {
    if (!adapter_has_more) return !adapter_.config.layers_to_transform.empty();
    return std::all_of(
        adapter_.modules.begin(), adapter_.modules.end(),
        [&](const LoraModule& module) { return base_.find(module.base_name) != nullptr; });
  }

  void compare_tokenizer() {
    const TokenizerFiles base = read_tokenizer_files(base_.directory);
    const TokenizerFiles own = read_tokenizer_files(adapter_.directory());
    if (!base.tokenizer) return;
    if (own.tokenizer) {
      if (*own.tokenizer == *base.tokenizer) return agree("tokenizer");
      return describe_tokenizers();
    }
    if (!manifest_ || !manifest_->base_tokenizer) return;
    if (*manifest_->base_tokenizer == *base.tokenizer) return agree("tokenizer");
    differ(Subject::tokenizer,
           "tokenizer.json of the base is not the one that was there when the adapter was saved");
  }

  void describe_tokenizers() {
    TokenizerDifference difference;
    try {
      difference = compare_tokenizers(adapter_.directory() / kTokenizerName,
                                      base_.directory / kTokenizerName);
    } catch (const Error& error) {
      return differ(Subject::tokenizer, "the tokenizers differ: " + error.message());
    }
    if (difference.is_empty()) return agree("vocabulary");
    std::string message = "the adapter's tokenizer has " + std::to_string(difference.tokens_a) +
                          " tokens, the base's " + std::to_string(difference.tokens_b);
    const auto add = [&](const std::vector<std::string>& tokens, const std::string& what) {
      if (!tokens.empty())
        message +=
            "; " + std::to_string(tokens.size()) + " " + what + ": " + rules::join_some(tokens);
    };
    add(difference.only_in_a, "only in the adapter's");
    add(difference.only_in_b, "only in the base's");
    add(difference.renumbered, "with another id");
    differ(Subject::tokenizer, std::move(message), !difference.renumbered.empty());
  }

  void compare_chat_template() {
    const TokenizerFiles base = read_tokenizer_files(base_.directory);
    const TokenizerFiles own = read_tokenizer_files(adapter_.directory());
    const auto size = [](const std::string& text) {
      return std::to_string(text.size()) + " characters";
    };
    if (own.chat_template && base.chat_template) {
      if (*own.chat_template == *base.chat_template) return agree("chat template");
      differ(Subject::chat_template, "the adapter brings a chat template of " +
                                         size(*own.chat_template) + ", the base has another of " +
                                         size(*base.chat_template));
    } else if (own.chat_template) {
      differ(Subject::chat_template, "the adapter brings a chat template of " +
                                         size(*own.chat_template) + ", the base has none");
    } else if (manifest_ && manifest_->base_chat_template &&
               manifest_->base_chat_template != base.chat_template_digest()) {
      differ(Subject::chat_template,
             "the chat template of the base is not the one that was there when the adapter was "
             "saved");
    }
  }

  const Adapter& adapter_;
  const std::optional<Manifest>& manifest_;
  const Checkpoint& base_;
  const std::optional<ResolvedTargets>& targets_;
  BaseEvidence evidence_;
};

}  // namespace

BaseName name_of_base(const Checkpoint& base) {
  // CACHE/models--ORG--NAME/snapshots/COMMIT
  std::error_code ignored;
  const fs::path directory = fs::absolute(base.directory, ignored).lexically_normal();
  const fs::path snapshots = directory.parent_path();
  const std::string folder = snapshots.parent_path().filename().string();
  constexpr std::string_view kStart = "models--";
  if (base.directory.empty() || snapshots.filename() != "snapshots" || !folder.starts_with(kStart))
    return {};
  std::string id = folder.substr(kStart.size());
  if (const auto separator = id.find("--"); separator != std::string::npos)
    id.replace(separator, 2, "/");
  return {std::move(id), directory.filename().string()};
}

BaseEvidence compare_with_base(const Adapter& adapter, const std::optional<Manifest>& manifest,
                               const Checkpoint& base,
                               const std::optional<ResolvedTargets>& targets) {
  return Comparison(adapter, manifest, base, targets).run();
}

}  // namespace lora
