#include "text/special_tokens.h"

#include <charconv>

#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora::text {
namespace {

// "<s>" or {"content": "<s>", ...}.
std::string content_of(const Json* value) {
  if (value == nullptr) return {};
  if (const std::string* plain = value->as_string()) return *plain;
  const Json* content = value->find("content");
  const std::string* text = content ? content->as_string() : nullptr;
  return text ? *text : std::string();
}

void take_names(const Json& document, SpecialTokens& tokens) {
  if (tokens.bos.empty()) tokens.bos = content_of(document.find("bos_token"));
  if (tokens.eos.empty()) tokens.eos = content_of(document.find("eos_token"));
  if (tokens.pad.empty()) tokens.pad = content_of(document.find("pad_token"));
}

// config.json writes one id or a list, whose first is the end of a text.
std::optional<std::int64_t> id_of(const Json* value) {
  if (value == nullptr) return std::nullopt;
  if (const JsonArray* list = value->as_array())
    return list->empty() ? std::nullopt : list->front().as_int();
  return value->as_int();
}

void take_added(const Json& document, SpecialTokens& tokens, const std::string& context) {
  const Json* decoder = document.find("added_tokens_decoder");
  const JsonObject* entries = decoder ? decoder->as_object() : nullptr;
  if (entries == nullptr) return;
  for (const auto& [key, value] : *entries) {
    AddedToken token;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    token.content = content_of(&value);
    if (error != std::errc() || end != key.data() + key.size() || token.content.empty())
      throw Error(ErrorKind::malformed, "cannot read " + context +
                                            ": added_tokens_decoder has the entry \"" + key +
                                            "\", expected an id with its token")
          .in_file(context);
    const auto flag = [&entry = value](std::string_view name) {
      const Json* member = entry.find(name);
      return member && member->as_bool().value_or(false);
    };
    token.single_word = flag("single_word");
    token.lstrip = flag("lstrip");
    token.rstrip = flag("rstrip");
    token.normalized = flag("normalized");
    token.special = flag("special");
    tokens.added.push_back(std::move(token));
  }
}

}  // namespace

SpecialTokens read_special_tokens(const std::filesystem::path& directory) {
  SpecialTokens tokens;
  const auto path_of = [&](const char* name) -> std::optional<std::filesystem::path> {
    std::error_code ignored;
    auto path = directory / name;
    if (!std::filesystem::exists(path, ignored)) return std::nullopt;
    return path;
  };
  if (const auto path = path_of("tokenizer_config.json")) {
    const Json document = read_json_file(*path);
    take_names(document, tokens);
    take_added(document, tokens, path->string());
  }
  if (const auto path = path_of("special_tokens_map.json"))
    take_names(read_json_file(*path), tokens);
  if (const auto path = path_of("config.json")) {
    const Json document = read_json_file(*path);
    tokens.bos_id = id_of(document.find("bos_token_id"));
    tokens.eos_id = id_of(document.find("eos_token_id"));
    tokens.pad_id = id_of(document.find("pad_token_id"));
  }
  return tokens;
}

}  // namespace lora::text
