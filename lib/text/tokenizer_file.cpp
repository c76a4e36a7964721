#include "text/tokenizer_file.h"

#include <charconv>
#include <optional>

#include "lora/base/mapped_file.h"
#include "text/component.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

// A cursor over JSON text that copies only what it is asked for. What it skips is parsed strictly
// afterwards, as part of the rest; what it copies, it checks itself.
class Cursor {
 public:
  Cursor(std::string_view text, const std::string& context) : text_(text), context_(context) {}

  std::size_t position() const { return at_; }
  void move_to(std::size_t position) { at_ = position; }

  char peek() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
    if (at_ == text_.size()) fail("the end of the file");
    return text_[at_];
  }

  bool take_if(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  void take(char c) {
    if (!take_if(c)) fail(std::string("'") + text_[at_] + "', expected '" + c + "'");
  }

  std::string string() {
    std::string out;
    append_string(out);
    return out;
  }

  void append_string(std::string& out) {
    take('"');
    for (;;) {
      std::size_t end = at_;
      while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
             static_cast<unsigned char>(text_[end]) >= 0x20)
        ++end;
      out.append(text_, at_, end - at_);
      at_ = end;
      if (at_ == text_.size()) fail("the end of the file inside a string");
      if (text_[at_] == '"') break;
      if (text_[at_] != '\\') fail("a control character inside a string");
      ++at_;
      escape(out);
    }
    ++at_;
  }

  std::int64_t integer() {
    peek();
    std::int64_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("something else, expected an integer");
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  void skip_value() {
    int depth = 0;
    do {
      const char c = peek();
      if (c == '"') {
        skip_string();
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        if (depth == 0) fail("an unexpected bracket");
        --depth;
        ++at_;
      } else if (depth > 0 && (c == ',' || c == ':')) {
        ++at_;
      } else {
        const std::size_t begin = at_;
        while (at_ < text_.size() &&
               std::string_view(",:{}[]\" \n\r\t").find(text_[at_]) == std::string_view::npos)
          ++at_;
        if (at_ == begin) fail("an unexpected character");
      }
    } while (depth > 0);
  }

  [[noreturn]] void fail(const std::string& found) const {
    throw malformed_tokenizer("found " + found + " at byte " + std::to_string(at_), context_);
  }

 private:
  void skip_string() {
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) {
      at_ = text_.size();
      fail("the end of the file inside a string");
    }
    ++at_;
  }

  std::uint32_t hexadecimal() {
    std::uint32_t value = 0;
    if (at_ + 4 > text_.size()) fail("the end of the file inside a string");
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, begin + 4, value, 16);
    if (error != std::errc() || end != begin + 4) fail("a bad \\u escape");
    at_ += 4;
    return value;
  }

  void escape(std::string& out) {
    if (at_ == text_.size()) fail("the end of the file inside a string");
    const char c = text_[at_++];
    constexpr std::string_view kLetters = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (const std::size_t i = kLetters.find(c); i != std::string_view::npos) {
      out += kMeanings[i];
      return;
    }
    if (c != 'u') fail("an unknown escape inside a string");
    std::uint32_t code_point = hexadecimal();
    if (code_point >= 0xD800 && code_point < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") fail("half a surrogate pair");
      at_ += 2;
      const std::uint32_t low = hexadecimal();
      if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
      code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
    } else if (code_point >= 0xDC00 && code_point < 0xE000) {
      fail("half a surrogate pair");
    }
    append_utf8(out, code_point);
  }

  std::string_view text_;
  const std::string& context_;
  std::size_t at_ = 0;
};

template <typename Member>
void each_member(Cursor& cursor, Member&& member) {
  cursor.take('{');
  if (cursor.take_if('}')) return;
  do {
    const std::string key = cursor.string();
    cursor.take(':');
    member(key);
  } while (cursor.take_if(','));
  cursor.take('}');
}

template <typename Item>
void each_item(Cursor& cursor, Item&& item) {
  cursor.take('[');
  if (cursor.take_if(']')) return;
  do item();
  while (cursor.take_if(','));
  cursor.take(']');
}

// Index entry, place in the table, and name by id of a token; the spelling is kept in three places.
constexpr std::uint64_t kTokenBytes = 128;
// Place in the table and in the index.
constexpr std::uint64_t kMergeBytes = 64;
constexpr std::uint64_t kBase = std::uint64_t{56} << 20;
constexpr std::size_t kMaxFileSize = std::size_t{512} << 20;  // offsets into it have 32 bits
constexpr std::size_t kMaxRestSize = std::size_t{16} << 20;

// What a value holds on the heap.
std::uint64_t footprint(const Json& value) {
  std::uint64_t bytes = 0;
  if (const std::string* text = value.as_string()) {
    bytes = text->size();
  } else if (const JsonArray* array = value.as_array()) {
    bytes = array->capacity() * sizeof(Json);
    for (const Json& item : *array) bytes += footprint(item);
  } else if (const JsonObject* object = value.as_object()) {
    bytes = 2 * object->size() * sizeof(JsonMember);
    for (const auto& [name, member] : *object) bytes += 2 * name.size() + footprint(member);
  }
  return bytes;
}

class TableReader {
 public:
  TableReader(Cursor& cursor, TokenizerFile& file, const std::string& context)
      : cursor_(cursor), file_(file), tables_(file.tables), context_(context) {}

  void read_vocab() {
    if (cursor_.peek() != '{')
      throw unsupported_component("model", "with a vocabulary that is not a map", context_);
    cursor_.take('{');
    if (cursor_.take_if('}')) return;
    do {
      const std::uint32_t offset = here();
      cursor_.append_string(tables_.text);
      cursor_.take(':');
      const std::uint32_t size = here() - offset;
      spend_memory_of_tokenizer(file_.budget, kTokenBytes + 3 * std::uint64_t{size}, context_);
      tables_.tokens.push_back({offset, size, cursor_.integer()});
    } while (cursor_.take_if(','));
    cursor_.take('}');
  }

  void read_merges() {
    each_item(cursor_, [&] {
      const std::uint32_t offset = here();
      std::uint32_t left = 0;
      if (cursor_.take_if('[')) {
        cursor_.append_string(tables_.text);
        left = here() - offset;
        cursor_.take(',');
        cursor_.append_string(tables_.text);
        cursor_.take(']');
      } else {
        cursor_.append_string(tables_.text);
        left = take_space_out(offset);
      }
      const std::uint32_t right = here() - offset - left;
      spend_memory_of_tokenizer(file_.budget, kMergeBytes + left + right, context_);
      tables_.merges.push_back({offset, left, right});
    });
  }

 private:
  std::uint32_t here() const { return static_cast<std::uint32_t>(tables_.text.size()); }

  // "a b" at the end of the text becomes "ab"; gives the size of "a".
  std::uint32_t take_space_out(std::uint32_t offset) {
    std::string& text = tables_.text;
    const std::size_t space = text.find(' ', offset);
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
      throw malformed_tokenizer("merge " + std::to_string(tables_.merges.size()) + " is \"" +
                                    text.substr(offset) +
                                    "\", expected two tokens with one space between them",
                                context_);
    text.erase(space, 1);
    return static_cast<std::uint32_t>(space) - offset;
  }

  Cursor& cursor_;
  TokenizerFile& file_;
  TokenTables& tables_;
  const std::string& context_;
};

// Where the two tables begin, and the document without them.
struct Outline {
  std::optional<std::size_t> vocab;
  std::optional<std::size_t> merges;
  std::string rest;
};

Outline outline_of(Cursor& cursor, std::string_view text) {
  Outline outline;
  std::size_t copied = 0;
  each_member(cursor, [&](const std::string& key) {
    if (key != "model" || cursor.peek() != '{') {
      cursor.skip_value();
      return;
    }
    each_member(cursor, [&](const std::string& field) {
      const char first = cursor.peek();
      const std::size_t begin = cursor.position();
      cursor.skip_value();
      const bool is_vocab = field == "vocab";
      if (!is_vocab && !(field == "merges" && first == '[')) return;
      (is_vocab ? outline.vocab : outline.merges) = begin;
      outline.rest.append(text, copied, begin - copied).append("null");
      copied = cursor.position();
    });
  });
  outline.rest.append(text, copied);
  return outline;
}

}  // namespace

void spend_memory_of_tokenizer(AllocationBudget& budget, std::uint64_t bytes,
                               const std::string& context) {
  if (!budget.spend(bytes))
    throw malformed_tokenizer("it would take more memory than a file of its size justifies",
                              context);
}

TokenizerFile parse_tokenizer(std::string_view text, const std::string& context) {
  if (text.size() > kMaxFileSize)
    throw malformed_tokenizer("it has " + std::to_string(text.size()) +
                                  " bytes, expected at most " + std::to_string(kMaxFileSize),
                              context);
  if (const std::size_t invalid = find_invalid_utf8(text); invalid != std::string_view::npos)
    throw malformed_tokenizer("byte " + std::to_string(invalid) + " is not UTF-8", context);
  Cursor cursor(text, context);
  Outline outline = outline_of(cursor, text);
  if (outline.rest.size() > kMaxRestSize)
    throw malformed_tokenizer(
        "it has " + std::to_string(outline.rest.size()) +
            " bytes besides the vocabulary and the merges, expected at most " +
            std::to_string(kMaxRestSize),
        context);
  // The small part comes first: while it is parsed it takes the most.
  TokenizerFile file{parse_json(outline.rest, context),
                     {},
                     AllocationBudget(2 * std::uint64_t{text.size()}, kBase)};
  outline.rest = {};
  spend_memory_of_tokenizer(file.budget, footprint(file.rest), context);
  file.tables.text.reserve(text.size());
  TableReader reader(cursor, file, context);
  if (outline.vocab) {
    cursor.move_to(*outline.vocab);
    reader.read_vocab();
  }
  if (outline.merges) {
    cursor.move_to(*outline.merges);
    reader.read_merges();
  }
  return file;
}

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  const auto mapped = MappedFile::open(path);
  const auto bytes = mapped->bytes();
  return parse_tokenizer({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                         path.string());
}

}  // namespace lora::text
