#include "engine/border.h"

#include <new>
#include <string>

namespace lora::engine {
namespace {

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// LibTorch's CPU allocator reports exhaustion as a plain c10::Error.
bool is_about_memory(const std::string& message) {
  for (const char* sign : {"DefaultCPUAllocator", "out of memory", "allocate memory"})
    if (message.find(sign) != std::string::npos) return true;
  return false;
}

Error out_of_memory(const char* action, const std::string& detail) {
  return Error(ErrorKind::resources,
               std::string("out of memory while ") + action + (detail.empty() ? "" : ": " + detail))
      .with_hint("use smaller batches or sequences, --checkpointing layer, or --base-dtype nf4");
}

}  // namespace

Error current_exception_as_error(const char* action) {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const c10::Error& error) {
    const std::string message = first_line(error.what_without_backtrace());
    if (is_about_memory(message)) return out_of_memory(action, message);
    return Error(ErrorKind::internal,
                 std::string("LibTorch failed while ") + action + ": " + message);
  } catch (const std::bad_alloc&) {
    return out_of_memory(action, "");
  } catch (const std::exception& error) {
    return Error(ErrorKind::internal,
                 std::string("failed while ") + action + ": " + first_line(error.what()));
  } catch (...) {
    return Error(ErrorKind::internal, std::string("unknown failure while ") + action);
  }
}

}  // namespace lora::engine
