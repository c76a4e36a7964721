// Progress for people: one line that redraws itself on a terminal, plain lines now and then
// elsewhere. Nothing shows during the first second.
#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "cli/streams.h"
#include "lora/base/sinks.h"

namespace lora::cli {

class ProgressLine final : public ProgressSink {
 public:
  /// `unit` "B" formats counts as sizes; anything else is shown as a plain count.
  ProgressLine(const Streams& streams, std::string label, std::string unit, bool enabled);
  ~ProgressLine() override;

  void progress(std::uint64_t done, std::uint64_t total, std::string_view note) override;
  /// Removes the line so that other text can be written.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void draw(const std::string& text);

  const Streams& streams_;
  std::string label_;
  std::string unit_;
  bool enabled_;
  bool is_shown_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
  std::mutex mutex_;
};

}  // namespace lora::cli
