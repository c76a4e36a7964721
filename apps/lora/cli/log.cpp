#include "cli/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>

#include <mutex>

#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora::cli {
namespace {

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
  }
  return "info";
}

class Log final : public LogSink {
 public:
  Log(Console& console, LogLevel level, const std::optional<std::string>& json_file)
      : console_(console), level_(level) {
    if (!json_file) return;
    try {
      auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(*json_file, true);
      file_ = std::make_unique<spdlog::logger>("lora", std::move(sink));
    } catch (const spdlog::spdlog_ex&) {
      throw Error(ErrorKind::output, "cannot write the log file " + *json_file).in_file(*json_file);
    }
    file_->set_pattern("{\"time\":\"%Y-%m-%dT%H:%M:%S.%e%z\",%v}");
  }

  void log(LogLevel level, std::string_view message) override {
    const std::lock_guard lock(mutex_);
    if (file_)
      file_->info("\"level\":\"{}\",\"message\":{}", name_of(level),
                  dump_json(printable(message), kCompactStyle));
    if (level < level_) return;
    if (level == LogLevel::warning) {
      console_.warning(message);
    } else {
      console_.note(message);
    }
  }

 private:
  Console& console_;
  LogLevel level_;
  std::unique_ptr<spdlog::logger> file_;
  std::mutex mutex_;
};

}  // namespace

std::unique_ptr<LogSink> make_log(Console& console, LogLevel level,
                                  const std::optional<std::string>& json_file) {
  return std::make_unique<Log>(console, level, json_file);
}

}  // namespace lora::cli
