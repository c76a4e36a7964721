#include "lora/text/chat_template.h"

#include <algorithm>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "text/chat_interpreter.h"
#include "text/chat_lexer.h"
#include "text/chat_parser.h"
#include "text/utf8.h"

namespace lora {

// A template becomes a tree of a hundred times its size; the longest in use have some 20 KiB.
constexpr std::size_t kLongestSource = std::size_t{256} << 10;

namespace {

// transformers gives reasoning under each of the names that templates know it by.
Json with_reasoning_names(const Json& messages) {
  if (!messages.is_array()) return messages;
  JsonArray turns;
  for (const Json& turn : *messages.as_array()) {
    const Json* reasoning = nullptr;
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      const Json* value = turn.is_object() ? turn.find(name) : nullptr;
      if (reasoning == nullptr && value != nullptr && !value->is_null()) reasoning = value;
    }
    if (reasoning == nullptr) {
      turns.push_back(turn);
      continue;
    }
    JsonObject named{{"thinking", *reasoning}};
    for (const auto& [key, value] : *turn.as_object()) named[key] = value;
    named["reasoning_content"] = *reasoning;
    turns.emplace_back(std::move(named));
  }
  return turns;
}

}  // namespace

struct ChatTemplate::Impl {
  std::string context;
  std::vector<text::Statement> program;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::parse(std::string_view source, const std::string& context) {
  if (source.size() > kLongestSource)
    throw Error(ErrorKind::malformed,
                "cannot use chat template " + context + ": found " + std::to_string(source.size()) +
                    " bytes, expected at most " + std::to_string(kLongestSource))
        .in_file(context);
  if (text::find_invalid_utf8(source) != std::string_view::npos)
    throw Error(ErrorKind::malformed, "cannot use chat template " + context + ": it is not UTF-8")
        .in_file(context);
  auto impl = std::make_unique<Impl>();
  impl->context = context;
  impl->program = text::parse_template(text::lex_template(source, context), context);
  return ChatTemplate(std::move(impl));
}

std::optional<ChatTemplate> ChatTemplate::from_directory(const std::filesystem::path& directory,
                                                         std::string_view name) {
  std::error_code ignored;
  if (const auto file = directory / "chat_template.jinja"; std::filesystem::exists(file, ignored)) {
    const auto mapped = MappedFile::open(file);
    const auto bytes = mapped->bytes();
    return parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.string());
  }
  const auto file = directory / "tokenizer_config.json";
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  const Json document = read_json_file(file);
  const Json* value = document.find("chat_template");
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (const std::string* source = value->as_string()) return parse(*source, file.string());
  std::string names;
  if (const JsonArray* list = value->as_array()) {
    for (const Json& entry : *list) {
      const Json* label = entry.find("name");
      const Json* source = entry.find("template");
      if (!label || !label->is_string() || !source || !source->is_string()) continue;
      if (*label->as_string() == name) return parse(*source->as_string(), file.string());
      names.append(names.empty() ? "" : ", ").append(*label->as_string());
    }
  }
  throw Error(ErrorKind::malformed, "cannot find the chat template \"" + std::string(name) +
                                        "\" in " + file.string() + ": found " +
                                        (names.empty() ? "no named templates" : names))
      .in_file(file.string());
}

RenderedChat ChatTemplate::render(const Json& messages, const ChatOptions& options) const {
  text::Dict variables;
  for (const auto& [key, value] : options.variables) variables.set(key, text::value_of(value));
  // transformers always defines these two, as none when they are not given.
  for (const char* name : {"tools", "documents"})
    if (variables.find(name) == nullptr) variables.set(name, text::Value::none());
  variables.set("messages", text::value_of(with_reasoning_names(messages)));
  variables.set("add_generation_prompt", {options.add_generation_prompt});
  for (const auto& [name, token] :
       {std::pair{"bos_token", &options.bos_token}, std::pair{"eos_token", &options.eos_token},
        std::pair{"pad_token", &options.pad_token}})
    if (!token->empty()) variables.set(name, text::Value::of(*token));
  return text::run_template(impl_->program, std::move(variables),
                            options.now ? &*options.now : nullptr, impl_->context);
}

bool ChatTemplate::marks_generation() const {
  const auto marks = [](const auto& self, const std::vector<text::Statement>& body) -> bool {
    return std::any_of(body.begin(), body.end(), [&](const text::Statement& statement) {
      return statement.kind == text::Statement::Kind::generation || self(self, statement.body) ||
             self(self, statement.other);
    });
  };
  return marks(marks, impl_->program);
}

std::vector<TextRange> assistant_ranges(const ChatTemplate& chat_template, const Json& messages,
                                        const ChatOptions& options, const RenderedChat& rendered) {
  if (chat_template.marks_generation()) return rendered.generated;
  std::vector<TextRange> ranges;
  const JsonArray* turns = messages.as_array();
  if (turns == nullptr) return ranges;
  JsonArray so_far;
  for (const Json& turn : *turns) {
    const Json* role = turn.find("role");
    if (role != nullptr && role->as_string() && *role->as_string() == "assistant") {
      ChatOptions prompt = options;
      prompt.add_generation_prompt = true;
      ChatOptions whole = options;
      whole.add_generation_prompt = false;
      const std::string before = chat_template.render(so_far, prompt).text;
      JsonArray with_turn = so_far;
      with_turn.push_back(turn);
      const std::string after = chat_template.render(with_turn, whole).text;
      if (!after.starts_with(before) || !rendered.text.starts_with(after))
        throw Error(ErrorKind::incompatible,
                    "cannot tell answers from prompts: the chat template renders a conversation "
                    "differently once message " +
                        std::to_string(so_far.size()) + " or a later one follows")
            .with_hint("use a template with {% generation %}, or the loss on all tokens");
      ranges.push_back({before.size(), after.size()});
    }
    so_far.push_back(turn);
  }
  return ranges;
}

}  // namespace lora
