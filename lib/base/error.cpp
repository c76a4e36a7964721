#include "lora/base/error.h"

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

Error::Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

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
  hint_ = std::move(hint);
  return *this;
}
Error&& Error::with_hint(std::string hint) && { return std::move(with_hint(std::move(hint))); }

}  // namespace lora
