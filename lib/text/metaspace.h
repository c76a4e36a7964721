// Metaspace: the settings that its pre-tokenizer and its decoder share.
#pragma once

#include <string>

#include "text/component.h"

namespace lora::text {

struct Metaspace {
  /// Whether a text gets the replacement before it that does not begin with it.
  enum class Prepend { always, first, never };

  /// `context` names the file. Throws Error(malformed).
  Metaspace(const Component& part, const std::string& context);

  std::string replacement;  ///< one character, for a space
  Prepend prepend = Prepend::always;
  bool splits = true;
};

}  // namespace lora::text
