#include "cli/progress_line.h"

#include <utility>

#include "cli/units.h"

namespace lora::cli {
namespace {

constexpr std::chrono::milliseconds kSilence{1000};
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kPlainInterval{10};

}  // namespace

ProgressLine::ProgressLine(const Streams& streams, std::string label, std::string unit,
                           bool enabled)
    : streams_(streams),
      label_(std::move(label)),
      unit_(std::move(unit)),
      enabled_(enabled),
      start_(Clock::now()),
      last_(start_) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::clear() {
  if (!is_shown_) return;
  streams_.err << "\r\033[K" << std::flush;
  is_shown_ = false;
}

void ProgressLine::draw(const std::string& text) {
  if (streams_.err_is_terminal) {
    streams_.err << '\r' << text << "\033[K" << std::flush;
    is_shown_ = true;
  } else {
    streams_.err << text << '\n';
  }
}

void ProgressLine::progress(std::uint64_t done, std::uint64_t total, std::string_view note) {
  if (!enabled_) return;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const Clock::duration interval =
      streams_.err_is_terminal ? Clock::duration(kRedraw) : Clock::duration(kPlainInterval);
  const bool has_drawn = last_ != start_;
  if (now - start_ < kSilence || (has_drawn && now - last_ < interval)) return;
  last_ = now;
  const auto amount = [&](std::uint64_t value) {
    return unit_ == "B" ? bytes_text(value) : count_text(value);
  };
  std::string text = label_ + " " + amount(done);
  if (total != 0) {
    text += "/" + amount(total) + (unit_ == "B" ? "" : " " + unit_);
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    if (done > 0 && done < total) {
      const double left = elapsed / static_cast<double>(done) * static_cast<double>(total - done);
      text += ", " + duration_text(left) + " left";
    }
  }
  if (!note.empty()) text += ", " + std::string(note);
  draw(text);
}

}  // namespace lora::cli
