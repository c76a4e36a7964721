#include "ops/rules/tokenizer_size.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/format/json.h"

namespace lora::rules {
namespace {

// Of the small files; of tokenizer.json as much is searched for the list.
constexpr std::size_t kMostBytes = std::size_t{4} << 20;

class Largest {
 public:
  void see(std::int64_t id) { largest_ = std::max(largest_.value_or(-1), id); }
  std::optional<std::int64_t> size() const {
    return largest_ ? std::optional(*largest_ + 1) : std::nullopt;
  }

 private:
  std::optional<std::int64_t> largest_;
};

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The array behind `"added_tokens":`, brackets matched outside of strings; empty when not found.
std::string_view added_tokens(std::string_view text) {
  constexpr std::string_view key = "\"added_tokens\"";
  text = text.substr(0, kMostBytes);
  const auto at = text.find(key);
  const auto begin = at == std::string_view::npos ? at : text.find('[', at + key.size());
  if (begin == std::string_view::npos) return {};
  bool is_string = false;
  int depth = 0;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (is_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        is_string = false;
    } else if (c == '"') {
      is_string = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && --depth == 0) {
      return text.substr(begin, i + 1 - begin);
    }
  }
  return {};
}

void see_decoder(const Json& document, Largest& largest) {
  const Json* decoder = document.find("added_tokens_decoder");
  const JsonObject* tokens = decoder == nullptr ? nullptr : decoder->as_object();
  if (tokens == nullptr) return;
  for (const auto& [id, token] : *tokens) {
    std::int64_t value = 0;
    const auto parsed = std::from_chars(id.data(), id.data() + id.size(), value);
    if (parsed.ec == std::errc() && parsed.ptr == id.data() + id.size()) largest.see(value);
  }
}

template <typename Look>
void look_into(const std::filesystem::path& path, Look look) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return;
  try {
    look(*MappedFile::open(path), path.string());
  } catch (const Error&) {
    // A tokenizer that cannot be read says nothing about the adapter.
  }
}

}  // namespace

std::optional<std::int64_t> tokenizer_size(const std::filesystem::path& directory) {
  Largest largest;
  look_into(directory / "tokenizer_config.json", [&](const MappedFile& file, const auto& name) {
    if (file.bytes().size() <= kMostBytes) see_decoder(parse_json(text_of(file), name), largest);
  });
  look_into(directory / "added_tokens.json", [&](const MappedFile& file, const auto& name) {
    if (file.bytes().size() > kMostBytes) return;
    const Json document = parse_json(text_of(file), name);
    if (const JsonObject* tokens = document.as_object())
      for (const auto& [token, id] : *tokens)
        if (const auto value = id.as_int()) largest.see(*value);
  });
  look_into(directory / "tokenizer.json", [&](const MappedFile& file, const auto& name) {
    const std::string_view list = added_tokens(text_of(file));
    if (list.empty()) return;
    const Json tokens = parse_json(list, name);
    for (const Json& token : *tokens.as_array())
      if (const Json* id = token.find("id"))
        if (const auto value = id->as_int()) largest.see(*value);
  });
  return largest.size();
}

}  // namespace lora::rules
