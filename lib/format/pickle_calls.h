// What the allow-listed globals do when a pickle stream calls them.
#pragma once

#include <string>

#include "format/pickle.h"
#include "lora/base/error.h"

namespace lora::pickle {

Error malformed(const std::string& what);
Error unsupported(const std::string& what);

/// Items of lists and dicts, which double as they grow: old and new ones are there at once.
inline constexpr std::size_t kListItemBytes = 3 * sizeof(Ref);
inline constexpr std::size_t kDictItemBytes = 6 * sizeof(Ref);

/// A document in the making and what it may still allocate.
struct Builder {
  Document& document;
  AllocationBudget& budget;

  /// Appends a value.
  Ref append(Value value);
  /// Pays for `count` things of `bytes` each; throws Error(unsupported) when too little is left.
  void spend(std::size_t count, std::size_t bytes);
};

/// The value of `callee(*args)` as a new entry of the document, or an existing one where the call
/// only wraps it. Throws Error(malformed | unsupported) for arguments the real function would not
/// take.
Ref call(Builder& builder, const Global& callee, const std::vector<Ref>& args);

/// The storage that a persistent id stands for.
Ref load_storage(Builder& builder, Ref persistent_id);

}  // namespace lora::pickle
