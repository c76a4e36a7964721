#include "lora/format/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "format/utf8.h"

namespace lora {
namespace {

constexpr std::size_t kLinearMembers = 16;

// Python's repr of a float: shortest digits, exponent form below 1e-4 and from 1e16 on.
std::string float_text(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  std::array<char, 64> buffer{};
  const double magnitude = std::fabs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer.data(), result.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append_escaped_unit(std::string& out, unsigned unit) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += digits[(unit >> shift) & 15U];
}

// Appends the code point at the front of `text`, U+FFFD for a byte that is not UTF-8, so that the
// document is valid whatever the input; returns the bytes used.
std::size_t append_non_ascii(std::string& out, std::string_view text, bool ascii_only) {
  char32_t code_point = 0xFFFD;
  const std::size_t length = decode_utf8(text, code_point);
  if (!ascii_only) {
    out += length == 0 ? std::string_view("\xEF\xBF\xBD") : text.substr(0, length);
  } else if (code_point >= 0x10000) {
    append_escaped_unit(out, 0xD800 + static_cast<unsigned>((code_point - 0x10000) >> 10));
    append_escaped_unit(out, 0xDC00 + static_cast<unsigned>((code_point - 0x10000) & 0x3FFU));
  } else {
    append_escaped_unit(out, static_cast<unsigned>(code_point));
  }
  return length == 0 ? 1 : length;
}

void append_string(std::string& out, std::string_view text, bool ascii_only) {
  out += '"';
  while (!text.empty()) {
    const char c = text.front();
    const auto byte = static_cast<unsigned char>(c);
    std::size_t used = 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (byte < 0x20 || (byte == 0x7F && ascii_only)) {
          append_escaped_unit(out, byte);
        } else if (byte < 0x80) {
          out += c;
        } else {
          used = append_non_ascii(out, text, ascii_only);
        }
    }
    text.remove_prefix(used);
  }
  out += '"';
}

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Json& value, int depth) {
    if (value.is_null()) {
      out_ += "null";
    } else if (const auto boolean = value.as_bool()) {
      out_ += *boolean ? "true" : "false";
    } else if (value.is_integer()) {
      const auto unsigned_value = value.as_uint();
      out_ += unsigned_value ? std::to_string(*unsigned_value) : std::to_string(*value.as_int());
    } else if (value.is_number()) {
      out_ += float_text(*value.as_double());
    } else if (const std::string* text = value.as_string()) {
      append_string(out_, *text, style_.ascii_only);
    } else if (const JsonArray* array = value.as_array()) {
      write_items('[', ']', array->size(), depth,
                  [&](std::size_t i) { write((*array)[i], depth + 1); });
    } else {
      write_object(*value.as_object(), depth);
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void write_object(const JsonObject& object, int depth) {
    std::vector<const JsonMember*> members;
    for (const JsonMember& member : object) members.push_back(&member);
    if (style_.sort_keys)
      std::sort(members.begin(), members.end(),
                [](const JsonMember* a, const JsonMember* b) { return a->first < b->first; });
    write_items('{', '}', members.size(), depth, [&](std::size_t i) {
      append_string(out_, members[i]->first, style_.ascii_only);
      out_ += style_.space_after ? ": " : ":";
      write(members[i]->second, depth + 1);
    });
  }

  template <typename WriteItem>
  void write_items(char open, char close, std::size_t count, int depth, WriteItem&& write_item) {
    out_ += open;
    for (std::size_t i = 0; i < count; ++i) {
      if (i != 0) out_ += style_.indent < 0 && style_.space_after ? ", " : ",";
      new_line(depth + 1);
      write_item(i);
    }
    if (count != 0) new_line(depth);
    out_ += close;
  }

  void new_line(int depth) {
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<std::size_t>(depth * style_.indent), ' ');
  }

  JsonStyle style_;
  std::string out_;
};

}  // namespace

JsonObject::JsonObject(std::initializer_list<JsonMember> members) {
  for (const JsonMember& member : members) (*this)[member.first] = member.second;
}

std::size_t JsonObject::position_of(std::string_view key) const {
  if (members_.size() > kLinearMembers) {
    const auto found = index_.find(key);
    return found == index_.end() ? members_.size() : found->second;
  }
  std::size_t i = 0;
  while (i < members_.size() && members_[i].first != key) ++i;
  return i;
}

const Json* JsonObject::find(std::string_view key) const {
  const std::size_t i = position_of(key);
  return i < members_.size() ? &members_[i].second : nullptr;
}

Json* JsonObject::find(std::string_view key) {
  const std::size_t i = position_of(key);
  return i < members_.size() ? &members_[i].second : nullptr;
}

Json& JsonObject::operator[](std::string_view key) {
  if (Json* found = find(key)) return *found;
  members_.emplace_back(std::string(key), Json());
  if (members_.size() == kLinearMembers + 1) {
    for (std::size_t i = 0; i < members_.size(); ++i) index_.emplace(members_[i].first, i);
  } else if (members_.size() > kLinearMembers) {
    index_.emplace(key, members_.size() - 1);
  }
  return members_.back().second;
}

bool JsonObject::erase(std::string_view key) {
  const std::size_t position = position_of(key);
  if (position == members_.size()) return false;
  members_.erase(members_.begin() + static_cast<std::ptrdiff_t>(position));
  index_.clear();
  if (members_.size() > kLinearMembers)
    for (std::size_t i = 0; i < members_.size(); ++i) index_.emplace(members_[i].first, i);
  return true;
}

bool operator==(const JsonObject& a, const JsonObject& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.begin(), a.end(), [&](const JsonMember& member) {
    const Json* other = b.find(member.first);
    return other != nullptr && *other == member.second;
  });
}

Json::Json(std::uint64_t value) {
  if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    value_ = static_cast<std::int64_t>(value);
  } else {
    value_ = value;
  }
}

bool Json::is_integer() const {
  return std::holds_alternative<std::int64_t>(value_) ||
         std::holds_alternative<std::uint64_t>(value_);
}

bool Json::is_number() const { return is_integer() || std::holds_alternative<double>(value_); }

std::optional<bool> Json::as_bool() const {
  const bool* value = std::get_if<bool>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::int64_t> Json::as_int() const {
  const std::int64_t* value = std::get_if<std::int64_t>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::uint64_t> Json::as_uint() const {
  if (const std::uint64_t* value = std::get_if<std::uint64_t>(&value_)) return *value;
  const std::int64_t* value = std::get_if<std::int64_t>(&value_);
  if (value == nullptr || *value < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

std::optional<double> Json::as_double() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  if (const std::int64_t* value = std::get_if<std::int64_t>(&value_))
    return static_cast<double>(*value);
  if (const std::uint64_t* value = std::get_if<std::uint64_t>(&value_))
    return static_cast<double>(*value);
  return std::nullopt;
}

const Json* Json::find(std::string_view key) const {
  const JsonObject* object = as_object();
  return object ? object->find(key) : nullptr;
}

std::string_view Json::type_name() const {
  if (is_null()) return "null";
  if (is_bool()) return "boolean";
  if (is_integer()) return "integer";
  if (is_number()) return "number";
  if (is_string()) return "string";
  return is_array() ? "array" : "object";
}

std::string dump_json(const Json& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace lora
