// How long operations talk to their caller without printing: log lines, progress, cancellation.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace lora {

enum class LogLevel { debug, info, warning };

/// Receives log lines. Implementations must accept calls from any thread.
class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void log(LogLevel level, std::string_view message) = 0;
};

/// Receives progress of one operation in its own units (bytes, tensors, steps).
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  /// `total` is 0 while unknown. `note` is a short free text ("loss 2.31"), possibly empty.
  virtual void progress(std::uint64_t done, std::uint64_t total, std::string_view note) = 0;
};

/// Set from a signal handler; long loops look at it between units of work.
using CancelFlag = std::atomic<bool>;

/// What an operation gets from its caller; every member may be null.
struct Sinks {
  LogSink* log = nullptr;
  ProgressSink* progress = nullptr;
  const CancelFlag* cancel = nullptr;

  void debug(std::string_view message) const;
  void info(std::string_view message) const;
  void warning(std::string_view message) const;
  void report(std::uint64_t done, std::uint64_t total, std::string_view note = {}) const;
  bool is_cancelled() const;
  /// Throws Error(interrupted) once the flag is set.
  void throw_if_cancelled() const;
};

}  // namespace lora
