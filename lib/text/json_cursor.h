// Reading large JSON text in passing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lora::text {

/// A cursor over JSON text that copies only what it is asked for. What it skips must be parsed
/// strictly afterwards; what it copies, it checks itself. Throws Error(malformed) with the place.
class JsonCursor {
 public:
  /// Both must outlive the cursor; `context` names the file in messages.
  JsonCursor(std::string_view text, const std::string& context) : text_(text), context_(context) {}

  std::size_t position() const { return at_; }
  void move_to(std::size_t position) { at_ = position; }

  /// The next character that is no white space.
  char peek();
  bool take_if(char c);
  void take(char c);
  std::string string();
  void append_string(std::string& out);
  std::int64_t integer();
  /// A number as the tokenizers package reads it (see read_score).
  double score();
  void skip_value();
  [[noreturn]] void fail(const std::string& found) const;

 private:
  void skip_string();
  std::uint32_t hexadecimal();
  void escape(std::string& out);

  std::string_view text_;
  const std::string& context_;
  std::size_t at_ = 0;
};

template <typename Member>
void each_member(JsonCursor& cursor, Member&& member) {
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
void each_item(JsonCursor& cursor, Item&& item) {
  cursor.take('[');
  if (cursor.take_if(']')) return;
  do item();
  while (cursor.take_if(','));
  cursor.take(']');
}

}  // namespace lora::text
