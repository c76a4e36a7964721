#include "text/example_reader.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <utility>

#include "lora/base/error.h"
#include "lora/format/json.h"
#include "lora/text/chat_template.h"
#include "lora/text/tokenizer.h"
#include "text/sequence_label.h"

namespace lora::text {
namespace {

// Carries the reason why one line cannot be used.
struct BadLine {
  std::string reason;
};

const std::string& text_member(const Json& line, std::string_view key) {
  const Json* value = line.find(key);
  if (value == nullptr) throw BadLine{"it has no \"" + std::string(key) + "\""};
  const std::string* text = value->as_string();
  if (text == nullptr)
    throw BadLine{"\"" + std::string(key) + "\" is " + std::string(value->type_name()) +
                  ", expected a string"};
  return *text;
}

std::vector<std::int64_t> integers(const Json& value, std::string_view key) {
  const JsonArray* array = value.as_array();
  if (array == nullptr)
    throw BadLine{"\"" + std::string(key) + "\" is " + std::string(value.type_name()) +
                  ", expected an array of integers"};
  std::vector<std::int64_t> out;
  out.reserve(array->size());
  for (const Json& item : *array) {
    const auto integer = item.as_int();
    if (!integer)
      throw BadLine{"\"" + std::string(key) + "\" holds " + std::string(item.type_name()) +
                    " at index " + std::to_string(out.size()) + ", expected an integer"};
    out.push_back(*integer);
  }
  return out;
}

// The tokens that a sequence keeps, and how many there are.
struct Tokens {
  std::vector<std::int64_t> ids;  // the first seq_len
  std::int64_t count = 0;
  std::int64_t last = -1;

  void add(std::span<const std::int64_t> part, std::int64_t seq_len) {
    const auto room = static_cast<std::size_t>(seq_len) - ids.size();
    const auto kept = part.first(std::min(room, part.size()));
    ids.insert(ids.end(), kept.begin(), kept.end());
    count += static_cast<std::int64_t>(part.size());
    last = part.back();
  }
};

Tokens tokens_of(std::string_view text, bool add_special_tokens, const DataOptions& options) {
  Tokens tokens;
  options.tokenizer->encode_parts(
      text, add_special_tokens,
      [&](std::span<const std::int64_t> part) { tokens.add(part, options.seq_len); });
  return tokens;
}

Tokens tokens_with_end(std::string_view text, const DataOptions& options) {
  Tokens tokens = tokens_of(text, true, options);
  if (const auto eos = options.tokenizer->eos_id(); eos && tokens.last != *eos)
    tokens.add(std::array{*eos}, options.seq_len);
  return tokens;
}

std::size_t common_prefix(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  const std::size_t limit = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(limit), b.begin()).first -
      a.begin());
}

LineResult result_of(Tokens tokens) {
  LineResult result;
  result.example.input_ids = std::move(tokens.ids);
  result.tokens_before_cut = tokens.count;
  return result;
}

LineResult of_text(const Json& line, const DataOptions& options) {
  if (options.loss_on == LossOn::completion)
    throw BadLine{
        "\"text\" has no completion for the loss, expected prompt and completion or "
        "messages"};
  required_tokenizer(options, "text");
  return result_of(tokens_with_end(text_member(line, "text"), options));
}

// Prompt and completion are tokenized as one text, as the model will see them. A token that spans
// the seam belongs to the completion: it is the first that the prompt alone does not have.
LineResult of_completion(const Json& line, const DataOptions& options) {
  required_tokenizer(options, "prompt and completion");
  const std::string& prompt = text_member(line, "prompt");
  const std::string& completion = text_member(line, "completion");
  if (completion.empty()) throw BadLine{"\"completion\" is empty"};
  LineResult result = result_of(tokens_with_end(prompt + completion, options));
  if (options.loss_on == LossOn::completion) {
    Example& example = result.example;
    example.labels = example.input_ids;
    const std::size_t masked =
        common_prefix(tokens_of(prompt, true, options).ids, example.input_ids);
    std::fill_n(example.labels.begin(), masked, kNoLabel);
  }
  return result;
}

// A copy, so that what is cut off is not kept.
void cut(std::vector<std::int64_t>& values, std::int64_t seq_len) {
  if (static_cast<std::int64_t>(values.size()) > seq_len)
    values = std::vector<std::int64_t>(values.begin(), values.begin() + seq_len);
}

void check_messages(const Json& messages) {
  const JsonArray* turns = messages.as_array();
  if (turns == nullptr)
    throw BadLine{"\"messages\" is " + std::string(messages.type_name()) + ", expected an array"};
  if (turns->empty()) throw BadLine{"\"messages\" is empty"};
  for (std::size_t i = 0; i < turns->size(); ++i) {
    const Json* role = (*turns)[i].find("role");
    if (role == nullptr || !role->is_string())
      throw BadLine{"message " + std::to_string(i) + " has no \"role\" string"};
    if ((*turns)[i].find("content") == nullptr && (*turns)[i].find("tool_calls") == nullptr)
      throw BadLine{"message " + std::to_string(i) + " has no \"content\""};
  }
}

LineResult of_messages(const Json& line, const DataOptions& options) {
  const Tokenizer& tokenizer = required_tokenizer(options, "messages");
  if (options.chat_template == nullptr)
    throw Error(ErrorKind::incompatible, "cannot use \"messages\": the base has no chat template")
        .with_hint("add chat_template.jinja to the base, or write prompt and completion");
  const Json& messages = *line.find("messages");
  check_messages(messages);
  ChatOptions chat;
  chat.bos_token = tokenizer.bos_token();
  chat.eos_token = tokenizer.eos_token();
  chat.pad_token = tokenizer.pad_token();
  if (const Json* tools = line.find("tools")) chat.variables["tools"] = *tools;
  const RenderedChat rendered = options.chat_template->render(messages, chat);
  LineResult result = result_of(tokens_of(rendered.text, false, options));
  if (options.loss_on == LossOn::all) return result;
  Example& example = result.example;
  example.labels.assign(example.input_ids.size(), kNoLabel);
  const std::string_view text = rendered.text;
  // A prefix of the text has the tokens of the whole up to the first that reaches over its end.
  for (const TextRange& range :
       assistant_ranges(*options.chat_template, messages, chat, rendered)) {
    const auto tokens_up_to = [&](std::size_t end) {
      return common_prefix(tokens_of(text.substr(0, end), false, options).ids, example.input_ids);
    };
    const std::size_t begin = tokens_up_to(range.begin);
    if (begin == example.input_ids.size()) break;  // what follows was cut off
    const std::size_t end = tokens_up_to(range.end);
    for (std::size_t i = begin; i < end; ++i) example.labels[i] = example.input_ids[i];
  }
  return result;
}

LineResult of_ids(const Json& line, const DataOptions& options) {
  LineResult result;
  Example& example = result.example;
  example.input_ids = integers(*line.find("input_ids"), "input_ids");
  const Json* labels = line.find("labels");
  if (labels == nullptr && options.loss_on == LossOn::completion)
    throw BadLine{"\"input_ids\" without \"labels\" has no completion for the loss"};
  result.tokens_before_cut = static_cast<std::int64_t>(example.input_ids.size());
  if (labels == nullptr) {
    cut(example.input_ids, options.seq_len);
    return result;
  }
  example.labels = integers(*labels, "labels");
  if (example.labels.size() != example.input_ids.size())
    throw BadLine{"\"labels\" has " + std::to_string(example.labels.size()) +
                  " entries and \"input_ids\" " + std::to_string(example.input_ids.size())};
  cut(example.input_ids, options.seq_len);
  cut(example.labels, options.seq_len);
  return result;
}

LineResult of_sequence(const Json& line, const DataOptions& options) {
  LineResult result;
  if (line.find("input_ids")) {
    std::vector<std::int64_t>& ids = result.example.input_ids;
    ids = integers(*line.find("input_ids"), "input_ids");
    result.tokens_before_cut = static_cast<std::int64_t>(ids.size());
    cut(ids, options.seq_len);
  } else if (line.find("text")) {
    required_tokenizer(options, "text");
    result = result_of(tokens_of(text_member(line, "text"), true, options));
  } else {
    throw BadLine{"it has none of the keys text, input_ids"};
  }
  if (std::string problem = read_label(line, options.labels, result.label); !problem.empty())
    throw BadLine{std::move(problem)};
  return result;
}

LineResult of_labelled_tokens(const Json& line, const DataOptions& options) {
  for (const char* key : {"input_ids", "labels"})
    if (line.find(key) == nullptr) throw BadLine{"it has no \"" + std::string(key) + "\""};
  return of_ids(line, options);
}

// Without labels every token is its own.
LineResult read(const Json& line, const DataOptions& options) {
  if (!line.is_object())
    throw BadLine{"it is " + std::string(line.type_name()) + ", expected an object"};
  if (options.labels.use == LabelUse::sequence) return of_sequence(line, options);
  if (options.labels.use == LabelUse::each_token) return of_labelled_tokens(line, options);
  if (line.find("input_ids")) return of_ids(line, options);
  if (line.find("messages")) return of_messages(line, options);
  if (line.find("prompt") || line.find("completion")) return of_completion(line, options);
  if (line.find("text")) return of_text(line, options);
  throw BadLine{"it has none of the keys text, prompt and completion, messages, input_ids"};
}

void require_usable(const Example& example, const DataOptions& options) {
  if (const std::string problem = problem_with_ids(example.input_ids, options); !problem.empty())
    throw BadLine{problem};
  if (options.labels.use == LabelUse::sequence) return;
  const bool is_shifted = options.labels.use == LabelUse::next_token;
  const std::int64_t limit = is_shifted ? options.vocab_size : options.labels.count;
  for (const std::int64_t label : example.labels) {
    if (label == kNoLabel) continue;
    if (label < 0 || (limit > 0 && label >= limit) ||
        label > std::numeric_limits<std::int32_t>::max())
      throw BadLine{"label " + std::to_string(label) + " is neither " +
                    (is_shifted ? "a token" : "below " + std::to_string(limit)) + " nor -100"};
  }
  const bool has_loss =
      std::any_of(example.labels.begin() + (is_shifted ? 1 : 0), example.labels.end(),
                  [](std::int64_t label) { return label != kNoLabel; });
  if (!has_loss)
    throw BadLine{"no position of its " + std::to_string(example.input_ids.size()) +
                  " tokens (at most " + std::to_string(options.seq_len) +
                  " are kept) carries a loss"};
}

}  // namespace

const Tokenizer& required_tokenizer(const DataOptions& options, const std::string& what) {
  if (options.tokenizer == nullptr)
    throw Error(ErrorKind::incompatible,
                "cannot tokenize " + what + ": the base has no tokenizer.json")
        .with_hint("give data as input_ids, or add tokenizer.json to the base");
  return *options.tokenizer;
}

std::string problem_with_ids(const std::vector<std::int64_t>& ids, const DataOptions& options) {
  if (ids.empty()) return "it has no tokens";
  const std::int64_t limit =
      options.vocab_size > 0 ? options.vocab_size : std::numeric_limits<std::int32_t>::max();
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= limit)
      return "token id " + std::to_string(ids[i]) + " at index " + std::to_string(i) +
             " is not below the vocabulary size " + std::to_string(limit);
  if (options.max_positions > 0 && static_cast<std::int64_t>(ids.size()) > options.max_positions)
    return "it has " + std::to_string(ids.size()) + " tokens, the model has " +
           std::to_string(options.max_positions) + " positions";
  return {};
}

LineResult read_example(std::string_view line, const std::string& origin,
                        const DataOptions& options) {
  LineResult result;
  try {
    result = read(parse_json(line, origin), options);
    result.example.origin = origin;
    if (result.example.labels.empty()) result.example.labels = result.example.input_ids;
    require_usable(result.example, options);
  } catch (const BadLine& bad) {
    result.problem = bad.reason;
  } catch (const Error& error) {
    const bool is_about_base =
        options.tokenizer == nullptr ||
        (options.chat_template == nullptr && error.kind() == ErrorKind::incompatible);
    if (is_about_base && error.kind() != ErrorKind::malformed) throw;
    result.problem = error.message();
  }
  return result;
}

}  // namespace lora::text
