// Chat templates: the subset of Jinja that model repositories use, as transformers renders it
// (trim_blocks and lstrip_blocks on).
//
// Statements: for (with loop.*, inline `if`, else, recursive), if / elif / else, set (also of a
// namespace's member, of several names, and as a block with filters), macro, call, filter, with,
// raw, generation, break, continue. Expressions: literals, lists, tuples, dictionaries with text
// keys, + - * / // % ** ~, comparisons and chains of them, and / or / not, in, is, inline if,
// indexing, slices, attributes, calls with * and **. All of Jinja's tests; its filters but escape,
// groupby, slice, truncate, random and those that make HTML. Functions: raise_exception, namespace,
// range, dict, strftime_now where the caller gives the time. Python's methods of strings, lists and
// dictionaries that change nothing. What a filter makes can be looked through once, as in Python.
// Anything else is an Error(unsupported) that names the construct and its line.
#pragma once

#include <cstddef>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lora/format/json.h"

namespace lora {

struct ChatOptions {
  bool add_generation_prompt = false;  ///< end with the start of an assistant turn
  std::string bos_token;               ///< special tokens by spelling; empty when unknown
  std::string eos_token;
  std::string pad_token;
  std::optional<std::tm> now;  ///< what strftime_now tells; without it there is no such function
  JsonObject variables;        ///< further variables (`tools`, `enable_thinking`, ...)
};

/// Byte range [begin, end) of a rendered text.
struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

struct RenderedChat {
  std::string text;
  std::vector<TextRange> generated;  ///< what stood inside {% generation %}, in order
};

/// A parsed template. Immutable; rendering may happen on several threads at once.
class ChatTemplate {
 public:
  /// `context` names the source in messages. Throws Error(malformed) for a syntax error and
  /// Error(unsupported) for a construct outside the subset, each with its line.
  static ChatTemplate parse(std::string_view source, const std::string& context);

  /// chat_template.jinja, else `chat_template` of tokenizer_config.json: a string, or a list of
  /// named ones of which `name` is taken. nullopt when the directory has neither.
  static std::optional<ChatTemplate> from_directory(const std::filesystem::path& directory,
                                                    std::string_view name = "default");

  /// Renders an array of {"role": ..., "content": ...}. Throws Error(incompatible) with the
  /// template's own words when it calls raise_exception or cannot be applied to these messages.
  RenderedChat render(const Json& messages, const ChatOptions& options) const;

  /// True when the template marks assistant text with {% generation %}.
  bool marks_generation() const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Byte ranges of `rendered` that are answers of the assistant: the {% generation %} spans where
/// the template marks them, else the difference between the rendering up to a turn (with generation
/// prompt) and with it, which includes the end marker of the turn. Throws Error(incompatible) when
/// one is not a prefix of the other, since then the answers cannot be told apart.
std::vector<TextRange> assistant_ranges(const ChatTemplate& chat_template, const Json& messages,
                                        const ChatOptions& options, const RenderedChat& rendered);

}  // namespace lora
