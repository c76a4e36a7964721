// Typed reading of the `{"type": ..., ...}` objects that a tokenizer.json is made of.
#pragma once

#include <cstddef>
#include <string>

#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora::text {

/// "cannot read tokenizer FILE: pre_tokenizer Metaspace is not supported".
Error unsupported_component(const std::string& part, const std::string& what,
                            const std::string& context);

/// "cannot read tokenizer FILE: `what` ...".
Error malformed_tokenizer(const std::string& what, const std::string& context);

/// Steps of a normalizer or pre-tokenizer cost stack and time for every text: throws
/// unsupported_component for more than 256.
void require_few_steps(std::size_t count, const std::string& part, const std::string& context);

/// One component. `part` is its place ("pre_tokenizer"), `context` the file; both only for
/// messages.
class Component {
 public:
  Component(const Json& document, std::string part, std::string context);

  const std::string& type() const { return type_; }
  /// Default when absent or null; throws Error(malformed) for another type of value.
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key) const;
  /// A string of one character.
  std::string character(std::string_view key) const;
  /// Throws Error(malformed) for anything but an integer of at least 0.
  std::size_t count(std::string_view key) const;
  /// False when absent or null.
  bool has(std::string_view key) const;
  const JsonArray& array(std::string_view key) const;
  /// {"Regex": e} as e, {"String": s} as an expression that matches s.
  std::string pattern(std::string_view key) const;
  const Json& member(std::string_view key) const;

 private:
  Error wrong(std::string_view key, std::string_view expected) const;
  const Json& document_;
  std::string part_;
  std::string context_;
  std::string type_;
};

}  // namespace lora::text
