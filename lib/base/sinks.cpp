#include "lora/base/sinks.h"

#include "lora/base/error.h"

namespace lora {

void Sinks::debug(std::string_view message) const {
  if (log) log->log(LogLevel::debug, message);
}
void Sinks::info(std::string_view message) const {
  if (log) log->log(LogLevel::info, message);
}
void Sinks::warning(std::string_view message) const {
  if (log) log->log(LogLevel::warning, message);
}
void Sinks::report(std::uint64_t done, std::uint64_t total, std::string_view note) const {
  if (progress) progress->progress(done, total, note);
}
bool Sinks::is_cancelled() const { return cancel != nullptr && cancel->load(); }
void Sinks::throw_if_cancelled() const {
  if (is_cancelled()) throw Error(ErrorKind::interrupted, "interrupted");
}

}  // namespace lora
