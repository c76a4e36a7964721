// JSON as a sequence of events, for documents of which only a part matters and whose tree would
// take many times their size (vocabularies).
#pragma once

#include <string_view>

namespace lora {

/// Receives what a document holds, in order. Text views live until the call returns.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void open_object() = 0;
  virtual void open_array() = 0;
  virtual void close() = 0;
  virtual void key(std::string_view name) = 0;
  virtual void text(std::string_view value) = 0;
  virtual void number(double value) = 0;
  virtual void other() = 0;  ///< null, true, false
};

/// Throws Error(malformed) with the byte position for what is no JSON and for more than 128 levels
/// of nesting. Keys that are given twice are reported twice.
void scan_json(std::string_view text, std::string_view context, JsonEvents& events);

}  // namespace lora
