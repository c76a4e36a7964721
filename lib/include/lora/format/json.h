// JSON as this project needs it: strict reading, ordered objects, and writing that can match
// Python's json module byte for byte.
//
// Reading refuses duplicate keys, more than 128 levels of nesting, invalid UTF-8, NaN/Infinity
// literals and trailing bytes. Integers stay integers: 3.9 is never read as 3, -1 never as a size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace lora {

class Json;
using JsonArray = std::vector<Json>;
using JsonMember = std::pair<std::string, Json>;

/// Members in insertion order; keys are unique. Look-up is linear for small objects and hashed for
/// large ones (a vocabulary has 10^5 members).
class JsonObject {
 public:
  JsonObject() = default;
  JsonObject(std::initializer_list<JsonMember> members);

  const Json* find(std::string_view key) const;  ///< null when absent
  Json* find(std::string_view key);
  Json& operator[](std::string_view key);  ///< appends null when absent
  bool erase(std::string_view key);        ///< false when absent
  std::size_t size() const;
  bool empty() const;
  std::vector<JsonMember>::const_iterator begin() const;
  std::vector<JsonMember>::const_iterator end() const;
  std::vector<JsonMember>::iterator begin();
  std::vector<JsonMember>::iterator end();
  friend bool operator==(const JsonObject&, const JsonObject&);

 private:
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::size_t position_of(std::string_view key) const;

  std::vector<JsonMember> members_;
  std::unordered_map<std::string, std::size_t, TextHash, std::equal_to<>> index_;
};

class Json {
 public:
  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(std::int64_t{value}) {}
  Json(std::int64_t value) : value_(value) {}
  Json(std::uint64_t value);  ///< kept as int64 where it fits
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(JsonArray value) : value_(std::move(value)) {}
  Json(JsonObject value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const;  ///< written without fraction or exponent
  bool is_number() const;
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<JsonArray>(value_); }
  bool is_object() const { return std::holds_alternative<JsonObject>(value_); }

  /// Each returns nullopt / null when the value is of another type or out of range.
  std::optional<bool> as_bool() const;
  std::optional<std::int64_t> as_int() const;
  std::optional<std::uint64_t> as_uint() const;  ///< refuses negatives
  std::optional<double> as_double() const;       ///< integers are converted
  const std::string* as_string() const { return std::get_if<std::string>(&value_); }
  const JsonArray* as_array() const { return std::get_if<JsonArray>(&value_); }
  JsonArray* as_array() { return std::get_if<JsonArray>(&value_); }
  const JsonObject* as_object() const { return std::get_if<JsonObject>(&value_); }
  JsonObject* as_object() { return std::get_if<JsonObject>(&value_); }

  /// Member of an object, or null when this is not an object or has no such key.
  const Json* find(std::string_view key) const;

  /// "null", "boolean", "integer", "number", "string", "array", "object" (for messages).
  std::string_view type_name() const;

  friend bool operator==(const Json&, const Json&) = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, JsonArray,
               JsonObject>
      value_;
};

// These wait for the complete Json: its members hold one by value.
inline std::size_t JsonObject::size() const { return members_.size(); }
inline bool JsonObject::empty() const { return members_.empty(); }
inline std::vector<JsonMember>::const_iterator JsonObject::begin() const {
  return members_.begin();
}
inline std::vector<JsonMember>::const_iterator JsonObject::end() const { return members_.end(); }
inline std::vector<JsonMember>::iterator JsonObject::begin() { return members_.begin(); }
inline std::vector<JsonMember>::iterator JsonObject::end() { return members_.end(); }

struct JsonStyle {
  int indent = -1;          ///< -1: one line; otherwise spaces per level
  bool sort_keys = false;   ///< recursively, by code point as Python sorts
  bool ascii_only = false;  ///< escape everything beyond ASCII as \uXXXX
  bool space_after = true;  ///< one line: Python's default ", " and ": "; false: no spaces
};

/// PEFT's adapter_config.json: indent 2, sorted, ASCII, no final newline.
inline constexpr JsonStyle kPythonConfigStyle{2, true, true, true};
/// One line without spaces (JSON lines, safetensors headers).
inline constexpr JsonStyle kCompactStyle{-1, false, false, false};
/// What people read: indent 2, members in order, UTF-8.
inline constexpr JsonStyle kPrettyStyle{2, false, false, true};

/// `context` names the document in messages (usually a path). Throws Error(malformed) with the
/// byte position.
Json parse_json(std::string_view text, std::string_view context);

/// Reads a whole file; throws as parse_json and MappedFile::open do. Files above 8 MiB are refused.
Json read_json_file(const std::filesystem::path& path);

/// Numbers are spelled as Python's repr: integers plain, floats shortest round-trip with a point or
/// exponent ("16.0", "1e-05"); NaN and infinities as the strings "nan", "inf", "-inf".
std::string dump_json(const Json& value, const JsonStyle& style = kPrettyStyle);

}  // namespace lora
