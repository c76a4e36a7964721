#include "engine/train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora::engine {
namespace {

Error cannot(const char* action, const std::filesystem::path& path) {
  return Error(ErrorKind::output,
               std::string("cannot ") + action + " " + path.string() + ": " + std::strerror(errno))
      .in_file(path.string());
}

// Room may come back; everything else stays as it is.
bool is_full(int code) { return code == ENOSPC || code == EDQUOT; }

bool is_covered(const std::string& line, std::int64_t step, std::int64_t evaluated_step) {
  try {
    const Json document = parse_json(line, "metrics");
    const Json* type = document.find("type");
    const Json* number = document.find("step");
    const auto line_step = number ? number->as_int() : std::nullopt;
    if (type == nullptr || !line_step) return false;
    return *line_step <= (*type == Json("eval") ? evaluated_step : step);
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

MetricsFile::MetricsFile(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) throw cannot("open", path_);
}

MetricsFile::~MetricsFile() { ::close(fd_); }

void MetricsFile::append(const StepMetrics& metrics) {
  append_line(dump_json(JsonObject{{"type", "step"},
                                   {"step", metrics.step},
                                   {"loss", metrics.loss},
                                   {"lr", metrics.lr},
                                   {"grad_norm", metrics.grad_norm},
                                   {"tokens", metrics.tokens},
                                   {"tok_s", metrics.tokens_per_second},
                                   {"rss_bytes", metrics.rss_bytes}},
                        kCompactStyle));
}

void MetricsFile::append(const EvalMetrics& metrics) {
  append_line(dump_json(JsonObject{{"type", "eval"},
                                   {"step", metrics.step},
                                   {"loss", metrics.loss},
                                   {"tokens", metrics.tokens}},
                        kCompactStyle));
}

void MetricsFile::append_line(const std::string& line) {
  waiting_ += line + "\n";
  if (!write_waiting() && !is_full(errno)) throw cannot("write", path_);
}

// False with errno when something is left.
bool MetricsFile::write_waiting() {
  while (!waiting_.empty()) {
    const ssize_t written = ::write(fd_, waiting_.data(), waiting_.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    waiting_.erase(0, static_cast<std::size_t>(written));
  }
  return true;
}

void MetricsFile::sync() {
  if (!write_waiting()) throw cannot("write", path_);
  if (::fsync(fd_) != 0 && errno != EINVAL) throw cannot("flush", path_);
}

void cut_metrics(const std::filesystem::path& path, std::int64_t step,
                 std::int64_t evaluated_step) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return;
  std::uint64_t kept_bytes = 0;
  for (std::string line; std::getline(in, line);) {
    if (in.eof() || !is_covered(line, step, evaluated_step)) break;
    kept_bytes += line.size() + 1;
  }
  std::error_code failed;
  std::filesystem::resize_file(path, kept_bytes, failed);
  if (failed)
    throw Error(ErrorKind::output, "cannot shorten " + path.string() + ": " + failed.message())
        .in_file(path.string());
}

}  // namespace lora::engine
