#include "text/post_processor.h"

#include "text/component.h"

namespace lora::text {
namespace {

// RobertaProcessing and BertProcessing write a token as ["<s>", 0].
std::int64_t id_of_pair(const Json& value, const std::string& context) {
  const JsonArray* pair = value.as_array();
  const auto id = pair && pair->size() == 2 ? (*pair)[1].as_int() : std::nullopt;
  if (!id) throw malformed_tokenizer("post_processor expects tokens as [text, id]", context);
  return *id;
}

std::vector<std::int64_t> ids_of_special(const Component& part, const std::string& name,
                                         const std::string& context) {
  std::vector<std::int64_t> ids;
  const Json* token = part.member("special_tokens").find(name);
  const Json* list = token ? token->find("ids") : nullptr;
  if (list == nullptr || list->as_array() == nullptr)
    throw malformed_tokenizer(
        "post_processor names the special token \"" + name + "\" without ids for it", context);
  for (const Json& id : *list->as_array()) {
    if (!id.as_int())
      throw malformed_tokenizer("post_processor has an id that is not an integer", context);
    ids.push_back(*id.as_int());
  }
  return ids;
}

}  // namespace

PostProcessor::PostProcessor(const Json& document, const std::string& context) {
  if (!document.is_null()) add(document, context);
}

void PostProcessor::add(const Json& document, const std::string& context) {
  const Component part(document, "post_processor", context);
  const std::string& type = part.type();
  std::vector<std::int64_t> left;
  std::vector<std::int64_t> right;
  if (type == "Sequence") {
    for (const Json& step : part.array("processors")) add(step, context);
  } else if (type == "TemplateProcessing") {
    bool is_after = false;
    for (const Json& item : part.array("single")) {
      if (item.find("Sequence") != nullptr) {
        if (is_after)
          throw unsupported_component("post_processor", "template that repeats its sequence",
                                      context);
        is_after = true;
        continue;
      }
      const Json* special = item.find("SpecialToken");
      const Json* name = special ? special->find("id") : nullptr;
      if (name == nullptr || name->as_string() == nullptr)
        throw malformed_tokenizer("post_processor template has an unknown entry", context);
      const auto ids = ids_of_special(part, *name->as_string(), context);
      auto& side = is_after ? right : left;
      side.insert(side.end(), ids.begin(), ids.end());
    }
    if (!is_after)
      throw unsupported_component("post_processor", "template without a sequence", context);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    left.push_back(id_of_pair(part.member("cls"), context));
    right.push_back(id_of_pair(part.member("sep"), context));
  } else if (type != "ByteLevel") {
    throw unsupported_component("post_processor", type, context);
  }
  before_.insert(before_.begin(), left.begin(), left.end());
  after_.insert(after_.end(), right.begin(), right.end());
}

}  // namespace lora::text
