// The engine's border: whatever LibTorch or the standard library throws leaves as lora::Error, and
// what LibTorch would print goes to the log.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <functional>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/sinks.h"

namespace lora::engine {

/// LibTorch's warnings to a log sink, or nowhere while there is none.
class WarningsToLog final : public c10::WarningHandler {
 public:
  explicit WarningsToLog(const Sinks& sinks) : sinks_(sinks) {}
  void process(const c10::Warning& warning) override { sinks_.warning(warning.msg()); }

 private:
  const Sinks& sinks_;
};

/// The exception being handled as lora::Error; call inside a catch block only. `action` says what
/// was being done ("running the model"). Memory that could not be had is Error(resources),
/// anything else that is no lora::Error is Error(internal).
Error current_exception_as_error(const char* action);

/// Calls `body` behind the border.
template <typename Body>
auto behind_border(const char* action, const Sinks& sinks, Body&& body) {
  WarningsToLog handler(sinks);
  const c10::WarningUtils::WarningHandlerGuard guard(&handler);
  try {
    return std::forward<Body>(body)();
  } catch (const Error&) {
    throw;
  } catch (...) {
    throw current_exception_as_error(action);
  }
}

}  // namespace lora::engine
