#include "lora/base/error.h"

#include <algorithm>
#include <utility>

namespace lora {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return "usage";
    case ErrorKind::not_found:
      return "not_found";
    case ErrorKind::malformed:
      return "malformed";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::incompatible:
      return "incompatible";
    case ErrorKind::output:
      return "output";
    case ErrorKind::resources:
      return "resources";
    case ErrorKind::interrupted:
      return "interrupted";
    case ErrorKind::internal:
      return "internal";
  }
  return "internal";
}

namespace {

// Names and values from files stand in messages as they were found; a line break among them must
// not look like a second message.
std::string in_one_line(std::string text) {
  const auto is_control = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7F;
  };
  if (std::none_of(text.begin(), text.end(), is_control)) return text;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string shown;
  for (const char c : text) {
    if (!is_control(c)) {
      shown += c;
      continue;
    }
    shown += "\\x";
    shown += digits[static_cast<unsigned char>(c) >> 4];
    shown += digits[static_cast<unsigned char>(c) & 15];
  }
  return shown;
}

}  // namespace

Error::Error(ErrorKind kind, std::string message)
    : kind_(kind), message_(in_one_line(std::move(message))) {}

Error& Error::in_file(std::string path) & {
  file_ = std::move(path);
  return *this;
}
Error&& Error::in_file(std::string path) && { return std::move(in_file(std::move(path))); }

Error& Error::in_tensor(std::string name) & {
  tensor_ = std::move(name);
  return *this;
}
Error&& Error::in_tensor(std::string name) && { return std::move(in_tensor(std::move(name))); }

Error& Error::with_hint(std::string hint) & {
  hint_ = in_one_line(std::move(hint));
  return *this;
}
Error&& Error::with_hint(std::string hint) && { return std::move(with_hint(std::move(hint))); }

}  // namespace lora
