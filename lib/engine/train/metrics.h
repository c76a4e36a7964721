// metrics.jsonl: one JSON object a line, appended as the run goes.
//
//   {"type":"step","step":7,"loss":2.31,"lr":0.0002,"grad_norm":0.8,"tokens":7168,"tok_s":540.2,
//    "rss_bytes":1300000000}
//   {"type":"eval","step":10,"loss":2.2,"tokens":4096}
//
// `tokens` of a step counts all tokens trained on so far; that of an evaluation the supervised
// positions it averaged over. Everything but tok_s and rss_bytes is a function of the run's inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lora::engine {

struct StepMetrics {
  std::int64_t step = 0;
  double loss = 0;
  double lr = 0;
  double grad_norm = 0;
  std::int64_t tokens = 0;
  double tokens_per_second = 0;
  std::int64_t rss_bytes = 0;
};

struct EvalMetrics {
  std::int64_t step = 0;
  double loss = 0;
  std::int64_t tokens = 0;
};

class MetricsFile {
 public:
  /// Opens for appending, creating the file. Throws Error(output).
  explicit MetricsFile(std::filesystem::path path);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  /// What a full disk does not take waits for the next line. Throws Error(output) for any other
  /// failure.
  void append(const StepMetrics& metrics);
  void append(const EvalMetrics& metrics);
  /// Makes the lines so far durable: called before a checkpoint that stands for them is published.
  /// Throws Error(output), also while lines are waiting.
  void sync();

 private:
  void append_line(const std::string& line);
  bool write_waiting();

  std::filesystem::path path_;
  int fd_ = -1;
  std::string waiting_;
};

/// Cuts the file back to the steps up to `step` and the evaluations up to `evaluated_step`, which a
/// checkpoint stands for; a line that a killed process left torn ends the file too. A missing file
/// stays missing.
void cut_metrics(const std::filesystem::path& path, std::int64_t step, std::int64_t evaluated_step);

}  // namespace lora::engine
