#include "text/tokenizer_file.h"

#include <optional>

#include "lora/base/mapped_file.h"
#include "text/component.h"
#include "text/json_cursor.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

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
  TableReader(JsonCursor& cursor, TokenizerFile& file, const std::string& context)
      : cursor_(cursor), file_(file), tables_(file.tables), context_(context) {}

  void read_vocab() {
    if (cursor_.peek() == '[') {
      file_.vocabulary_is_list = true;
      read_scored_vocab();
      return;
    }
    cursor_.take('{');
    if (cursor_.take_if('}')) return;
    do {
      const std::uint32_t offset = here();
      cursor_.append_string(tables_.text);
      cursor_.take(':');
      add_token(offset, cursor_.integer());
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
  // Unigram: [["token", score], ...], the places are the ids.
  void read_scored_vocab() {
    each_item(cursor_, [&] {
      const std::uint32_t offset = here();
      cursor_.take('[');
      cursor_.append_string(tables_.text);
      cursor_.take(',');
      add_token(offset, static_cast<std::int64_t>(tables_.tokens.size()));
      tables_.scores.push_back(cursor_.score());
      cursor_.take(']');
    });
  }

  void add_token(std::uint32_t offset, std::int64_t id) {
    const std::uint32_t size = here() - offset;
    spend_memory_of_tokenizer(file_.budget, kTokenBytes + 3 * std::uint64_t{size}, context_);
    tables_.tokens.push_back({offset, size, id});
  }

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

  JsonCursor& cursor_;
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

Outline outline_of(JsonCursor& cursor, std::string_view text) {
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
  JsonCursor cursor(text, context);
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
                     AllocationBudget(2 * std::uint64_t{text.size()}, kBase),
                     false};
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
