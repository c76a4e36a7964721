#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/base/parallel.h"
#include "lora/format/safetensors.h"
#include "lora/text/dataset.h"
#include "lora/text/tokenizer.h"
#include "text/example_reader.h"
#include "text/sequence_label.h"

namespace lora {
namespace {

constexpr std::size_t kListedProblems = 10;

// Everything that is wrong with the files of one call.
struct Problems {
  std::vector<std::string> listed;
  std::size_t count = 0;
  std::string first_file;

  void add(const std::string& file, const std::string& origin, const std::string& reason) {
    if (count == 0) first_file = file;
    if (count < kListedProblems) listed.push_back(origin + ": " + reason);
    ++count;
  }

  void throw_if_any() const {
    if (count == 0) return;
    std::string message = "cannot use " + std::to_string(count) +
                          (count == 1 ? " line" : " lines") + " of the data: ";
    for (std::size_t i = 0; i < listed.size(); ++i)
      message.append(i == 0 ? "" : "; ").append(listed[i]);
    if (count > listed.size()) message += " and " + std::to_string(count - listed.size()) + " more";
    throw Error(ErrorKind::malformed, std::move(message)).in_file(first_file);
  }
};

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// Cuts a stream of tokens into examples of seq_len.
class Blocks {
 public:
  Blocks(std::string name, const DataOptions& options, Dataset& data)
      : name_(std::move(name)), options_(options), data_(data) {
    options_.max_positions = 0;  // of a block, not of the stream; the caller has compared
  }

  void add(std::span<const std::int64_t> part) {
    const auto length = static_cast<std::size_t>(options_.seq_len);
    while (!part.empty()) {
      const auto taken = part.first(std::min(part.size(), length - block_.size()));
      block_.insert(block_.end(), taken.begin(), taken.end());
      part = part.subspan(taken.size());
      if (block_.size() == length) close();
    }
  }

  void finish() {
    const std::size_t total = closed_ * static_cast<std::size_t>(options_.seq_len) + block_.size();
    if (closed_ == 0)
      throw Error(ErrorKind::malformed,
                  "cannot use " + name_ + ": it has " + std::to_string(total) +
                      " tokens, expected at least one block of " + std::to_string(options_.seq_len))
          .in_file(name_)
          .with_hint("a smaller --seq-len");
    if (block_.empty()) return;
    data_.notes.push_back(name_ + ": the last " + std::to_string(block_.size()) + " of " +
                          std::to_string(total) + " tokens do not fill a block and are left out");
  }

 private:
  void close() {
    const std::size_t first = closed_ * block_.size();
    if (const std::string problem = text::problem_with_ids(block_, options_); !problem.empty())
      throw Error(ErrorKind::incompatible, "cannot use " + name_ + ": in its tokens from " +
                                               std::to_string(first) + " on, " + problem)
          .in_file(name_);
    const std::size_t last = first + block_.size() - 1;
    data_.append({block_, block_,
                  name_ + ", tokens " + std::to_string(first) + " to " + std::to_string(last)});
    ++closed_;
    block_.clear();
  }

  std::string name_;
  DataOptions options_;
  Dataset& data_;
  std::vector<std::int64_t> block_;
  std::size_t closed_ = 0;
};

void load_text(const MappedFile& file, const DataOptions& options, Dataset& data) {
  const std::string name = file.path().string();
  if (options.labels.use != LabelUse::next_token)
    throw Error(ErrorKind::incompatible,
                "cannot use " + name + ": a .txt file has no labels, which this model needs")
        .in_file(name)
        .with_hint(std::string("give a .jsonl file with \"input_ids\" and ") +
                   (options.labels.use == LabelUse::sequence ? "\"label\"" : "\"labels\""));
  if (options.loss_on == LossOn::completion)
    throw Error(ErrorKind::usage,
                "cannot put the loss on completions of " + name + ": a .txt file has none")
        .in_file(name);
  if (options.max_positions > 0 && options.seq_len > options.max_positions)
    throw Error(ErrorKind::incompatible, "cannot cut " + name + " into blocks of " +
                                             std::to_string(options.seq_len) +
                                             " tokens: the model has " +
                                             std::to_string(options.max_positions) + " positions")
        .in_file(name)
        .with_hint("--seq-len " + std::to_string(options.max_positions));
  Blocks blocks(name, options, data);
  try {
    text::required_tokenizer(options, name)
        .encode_parts(
            text_of(file), true, [&](std::span<const std::int64_t> part) { blocks.add(part); },
            options.threads);
  } catch (Error& error) {
    if (!error.file().empty()) throw;
    throw Error(error.kind(), "cannot use " + name + ": " + error.message())
        .in_file(name)
        .with_hint(error.hint());
  }
  blocks.finish();
}

struct Line {
  std::string_view text;
  std::size_t number;
};

// Hands out the lines that hold something, some at a time: a line becomes values of many times its
// size, so that only a few may be in work at once.
class LineBatches {
 public:
  explicit LineBatches(std::string_view text) : rest_(text) {}

  /// At least one line, and further ones up to a megabyte; none at the end.
  std::vector<Line> next() {
    constexpr std::size_t kBytes = std::size_t{1} << 20;
    std::vector<Line> lines;
    std::size_t bytes = 0;
    while (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      const std::string_view line = rest_.substr(0, end);
      if (!lines.empty() && bytes + line.size() > kBytes) break;
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++number_;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      lines.push_back({line, number_});
      bytes += line.size() + sizeof(Line);
    }
    return lines;
  }

 private:
  std::string_view rest_;
  std::size_t number_ = 0;
};

std::vector<text::LineResult> read_examples(const std::vector<Line>& lines, const std::string& name,
                                            const DataOptions& options) {
  // A few lines at a time: a thread that takes one line a turn spends its time on taking turns.
  constexpr std::size_t kLinesPerTurn = 16;
  std::vector<text::LineResult> results(lines.size());
  parallel_for((lines.size() + kLinesPerTurn - 1) / kLinesPerTurn, options.threads,
               [&](std::size_t turn) {
                 const std::size_t end = std::min(lines.size(), (turn + 1) * kLinesPerTurn);
                 for (std::size_t i = turn * kLinesPerTurn; i < end; ++i)
                   results[i] = text::read_example(
                       lines[i].text, name + ":" + std::to_string(lines[i].number), options);
               });
  return results;
}

void load_lines(const MappedFile& file, const DataOptions& options, Dataset& data,
                text::SequenceLabels& labels, Problems& problems) {
  const std::string name = file.path().string();
  LineBatches batches(text_of(file));
  std::size_t count = 0;
  std::size_t cut = 0;
  for (std::vector<Line> lines = batches.next(); !lines.empty(); lines = batches.next()) {
    count += lines.size();
    const std::vector<text::LineResult> results = read_examples(lines, name, options);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const text::LineResult& result = results[i];
      const std::string origin = name + ":" + std::to_string(lines[i].number);
      std::string problem = result.problem;
      if (problem.empty() && options.labels.use == LabelUse::sequence)
        problem = labels.add(result.label);
      if (!problem.empty()) {
        problems.add(name, origin, problem);
        continue;
      }
      if (result.tokens_before_cut > options.seq_len) {
        data.truncated.push_back({origin, result.tokens_before_cut});
        ++cut;
      }
      data.append(result.example);
    }
  }
  if (cut != 0)
    data.notes.push_back(name + ": " + std::to_string(cut) + " of " + std::to_string(count) +
                         " examples are longer than " + std::to_string(options.seq_len) +
                         " tokens and were cut, the first at " +
                         data.truncated[data.truncated.size() - cut].origin);
}

Tensor joined(const Tensor& a, const Tensor& b) {
  std::vector<std::byte> bytes(a.bytes.begin(), a.bytes.end());
  bytes.insert(bytes.end(), b.bytes.begin(), b.bytes.end());
  std::vector<std::int64_t> shape = a.shape;
  shape[0] += b.shape[0];
  return Tensor::from_bytes(a.dtype, std::move(shape), std::move(bytes));
}

void load_table(const std::filesystem::path& path, Dataset& data) {
  const SafetensorsFile file = read_safetensors(path);
  for (const char* name : {"x", "y"})
    if (!file.tensors.contains(name))
      throw Error(ErrorKind::malformed, "cannot use " + path.string() +
                                            " as training data: it has no tensor \"" + name + "\"")
          .in_file(path.string())
          .in_tensor(name);
  Dataset table;
  table.set_table(file.tensors.at("x"), file.tensors.at("y"), path.string());
  if (!data.is_tabular) {
    data.set_table(table.x, table.y, path.string());
    return;
  }
  const auto same_row = [](const Tensor& a, const Tensor& b) {
    return a.dtype == b.dtype && a.shape.size() == b.shape.size() &&
           std::equal(a.shape.begin() + 1, a.shape.end(), b.shape.begin() + 1);
  };
  if (!same_row(data.x, table.x) || !same_row(data.y, table.y))
    throw Error(ErrorKind::incompatible, "cannot join " + path.string() +
                                             " to the data before it: its rows have another shape "
                                             "or dtype")
        .in_file(path.string());
  data.set_table(joined(data.x, table.x), joined(data.y, table.y), data.origin_of_table());
}

}  // namespace

Dataset load_dataset(const std::vector<std::filesystem::path>& files, const DataOptions& options) {
  if (files.empty()) throw Error(ErrorKind::usage, "cannot load training data: no file was given");
  if (options.seq_len < 2)
    throw Error(ErrorKind::usage, "cannot load training data: seq-len is " +
                                      std::to_string(options.seq_len) + ", expected at least 2");
  const auto count = [&](std::string_view ending) {
    return std::count_if(files.begin(), files.end(),
                         [&](const auto& file) { return file.extension() == ending; });
  };
  for (const auto& file : files)
    if (const auto ending = file.extension();
        ending != ".txt" && ending != ".jsonl" && ending != ".safetensors")
      throw Error(ErrorKind::usage, "cannot load training data from " + file.string() +
                                        ": expected a name that ends in .txt, .jsonl or "
                                        ".safetensors")
          .in_file(file.string());
  const auto all = static_cast<std::ptrdiff_t>(files.size());
  if (const auto tables = count(".safetensors"); tables != 0 && tables != all)
    throw Error(ErrorKind::usage,
                "cannot load training data: .safetensors and token files cannot be mixed");

  if (options.labels.use != LabelUse::next_token && options.loss_on == LossOn::completion)
    throw Error(ErrorKind::usage,
                "cannot put the loss on completions: the model does not predict the next token");

  Dataset data;
  data.label_use = options.labels.use;
  text::SequenceLabels labels;
  Problems problems;
  for (const auto& path : files) {
    const auto mapped = MappedFile::open(path);
    const std::size_t before = data.size();
    if (path.extension() == ".txt") {
      load_text(*mapped, options, data);
    } else if (path.extension() == ".jsonl") {
      load_lines(*mapped, options, data, labels, problems);
    } else {
      load_table(path, data);
    }
    data.files.push_back(
        {path, sha256(mapped->bytes()), mapped->bytes().size(), data.size() - before});
  }
  problems.throw_if_any();
  if (options.labels.use == LabelUse::sequence) data.y = labels.take();
  data.is_block_stream = count(".txt") == all;
  if (data.size() == 0)
    throw Error(ErrorKind::malformed,
                "cannot train on " + files.front().string() + ": it holds no examples")
        .in_file(files.front().string());
  return data;
}

}  // namespace lora
