// The one exception type of the project.
//
// Every failure that stops an operation is a lora::Error. Its kind decides the process exit code
// (see docs/cli.md); its message is one line in lower case without a full stop that says what was
// being done, on what, what was found and what was expected. `file`, `tensor` and `hint` are kept
// apart so that the JSON envelope can carry them as fields.
//
// Findings of verify, diff and inspect are not errors: they travel in reports.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace lora {

/// What went wrong, in terms a caller can act on.
enum class ErrorKind {
  usage,         ///< the request itself is wrong (flag, value, combination); exit 2
  not_found,     ///< an input path does not exist; exit 3
  malformed,     ///< an input exists and its bytes are wrong or cut short; exit 3
  unsupported,   ///< well formed, but of a kind this program does not handle; exit 3
  incompatible,  ///< inputs are fine alone and do not fit together; exit 4
  output,        ///< the output exists, or could not be written; exit 5
  resources,     ///< memory, engine or device not available; exit 6
  interrupted,   ///< stopped by the user; exit 130
  internal,      ///< a bug in this program; exit 70
};

/// Spelling of a kind in JSON documents, e.g. "not_found".
std::string_view to_string(ErrorKind kind);

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message);

  /// Each returns *this so that a throw reads as one expression:
  /// `throw Error(ErrorKind::malformed, "...").in_file(path).with_hint("...");`
  Error& in_file(std::string path) &;
  Error&& in_file(std::string path) &&;
  Error& in_tensor(std::string name) &;
  Error&& in_tensor(std::string name) &&;
  Error& with_hint(std::string hint) &;
  Error&& with_hint(std::string hint) &&;

  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const std::string& file() const { return file_; }      ///< empty when not about one file
  const std::string& tensor() const { return tensor_; }  ///< empty when not about one tensor
  const std::string& hint() const { return hint_; }      ///< empty when there is no advice
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorKind kind_;
  std::string message_;
  std::string file_;
  std::string tensor_;
  std::string hint_;
};

}  // namespace lora
