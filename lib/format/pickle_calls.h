// What the allow-listed globals do when a pickle stream calls them.
#pragma once

#include <string>

#include "format/pickle.h"
#include "lora/base/error.h"

namespace lora::pickle {

Error malformed(const std::string& what);
Error unsupported(const std::string& what);

/// The value of `callee(*args)` as a new entry of `document`, or an existing one where the call
/// only wraps it. Throws Error(malformed | unsupported) for arguments the real function would not
/// take.
Ref call(Document& document, const Global& callee, const std::vector<Ref>& args);

/// The storage that a persistent id stands for.
Ref load_storage(Document& document, Ref persistent_id);

/// Appends a value; throws Error(unsupported) beyond the cap on values.
Ref append(Document& document, Value value);

}  // namespace lora::pickle
