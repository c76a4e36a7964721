// Training data: files to examples of token ids (or rows of numbers for an mlp), and the order in
// which a run visits them.
//
// Formats, by file name:
//   .txt          one document, one token stream cut into blocks of exactly seq_len tokens; what is
//                 left after the last whole block is dropped (noted). No end token is appended.
//   .jsonl        one object a line: `text` | `prompt` + `completion` | `messages` | `input_ids`
//                 with optional `labels`. Blank lines are skipped. Other keys are ignored. Of
//                 models that predict no next token, see LabelUse.
//   .safetensors  for an mlp: `x` F32 [rows, features] with `y` I64 [rows] (classes) or
//                 F32 [rows, outputs] (values).
//
// End tokens: `text` and `completion` get the tokenizer's eos token appended unless their text
// already ends with it, as TRL's SFTTrainer does; `messages` and `input_ids` are taken as they are.
// Special tokens of the tokenizer's post-processor are added to .txt, `text` and `prompt`, never to
// `messages` (the template writes them itself).
//
// Too long: an example with more than seq_len tokens keeps its first seq_len; every such line is
// reported in Dataset::truncated. One whose kept part exceeds the model's positions is an error.
//
// Every line that cannot be used (does not parse, holds no known key, a token id out of range, no
// supervised position left, ...) is an error: all of them are gathered into one Error(malformed)
// per call that lists the first ten as "file:line: reason" and counts the rest. Nothing is dropped
// in silence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/sha256.h"
#include "lora/base/tensor.h"

namespace lora {

class Tokenizer;
class ChatTemplate;

/// Label of a position without loss, as in PyTorch and transformers.
inline constexpr std::int64_t kNoLabel = -100;

/// What labels belong to, as the model wants it.
///   next_token  causal language models: labels are tokens, the model shifts by one
///   each_token  masked language models and token classifiers: .jsonl with `input_ids` and
///   `labels`,
///               each label a token or class at its own position, -100 where there is none
///   sequence    sequence classifiers: .jsonl with `input_ids` or `text` (its special tokens are
///               added, no end token) and `label`, see LabelOptions
enum class LabelUse { next_token, each_token, sequence };

/// Which labels lines may have. A sequence's `label` is an integer (a class below `count`) or an
/// array of `count` numbers, of which one may stand alone; all lines of a data set have one kind.
struct LabelOptions {
  LabelUse use = LabelUse::next_token;
  std::int64_t count = 0;  ///< each_token: labels must lie below
  bool may_be_class = true;
  bool may_be_values = false;
};

/// Of a whole sequence: a class, or values where there are any.
struct SequenceLabel {
  std::int64_t class_id = kNoLabel;
  std::vector<float> values;
};

/// One training sequence. `labels` has the length of `input_ids`; labels[t] belongs to input_ids[t]
/// (a causal model shifts by one, so labels[0] never counts there; of sequences with one label they
/// mean nothing).
struct Example {
  std::vector<std::int64_t> input_ids;
  std::vector<std::int64_t> labels;
  std::string origin;  ///< "data.jsonl:12"; "corpus.txt, tokens 512 to 1023" for a block
};

/// What carries loss. `completion`: completions and assistant turns only; `text`, .txt and
/// `input_ids` without `labels` have no completion and are refused. `labels` of a line always win.
enum class LossOn { all, completion };

struct DataOptions {
  const Tokenizer* tokenizer = nullptr;         ///< needed by all but `input_ids` and .safetensors
  const ChatTemplate* chat_template = nullptr;  ///< needed by `messages`
  std::int64_t seq_len = 512;
  std::int64_t max_positions = 0;  ///< of the model; 0: no limit known
  std::int64_t vocab_size = 0;     ///< of the model; ids must lie below; 0: not checked
  LossOn loss_on = LossOn::all;    ///< of next_token
  LabelOptions labels;
  int threads = 0;  ///< 0: all; the result does not depend on it
};

/// A file that was read, for run.json.
struct DataFile {
  std::filesystem::path path;  ///< as given
  Digest digest;               ///< SHA-256 of its bytes
  std::uint64_t bytes = 0;
  std::size_t examples = 0;
};

/// An example that was cut to seq_len.
struct Truncation {
  std::string origin;
  std::int64_t tokens = 0;  ///< before the cut
};

/// Examples in file order. Tokens are held compactly; example() builds one on access, so it may be
/// called from any thread.
class Dataset {
 public:
  /// Sequences, blocks, or rows of an mlp.
  std::size_t size() const { return is_tabular ? rows_ : ends_.size(); }

  /// Sequence `index` < size(); only when !is_tabular.
  Example example(std::size_t index) const;

  /// Where example or row `index` came from: for messages about a batch.
  std::string origin(std::size_t index) const;

  /// Number of tokens of sequence `index`, without building it.
  std::int64_t length(std::size_t index) const;

  /// Appends a sequence; `labels` as long as `input_ids`, which is not empty. For the loader and
  /// for tests of code that consumes data sets.
  void append(const Example& example);
  /// Makes this a table of rows; shapes as in the paragraph above. Throws Error(malformed) else.
  void set_table(Tensor table_x, Tensor table_y, std::string table_origin);
  /// The file of the first rows of a table, empty otherwise.
  const std::string& origin_of_table() const { return table_origin_; }

  bool is_block_stream = false;  ///< every file was .txt: all examples have seq_len tokens
  bool is_tabular = false;       ///< .safetensors: use x and y, example() is not available
  LabelUse label_use = LabelUse::next_token;
  Tensor x;  ///< F32 [rows, features]
  Tensor y;  ///< of tables and of sequences with one label: I64 [size] or F32 [size, outputs]

  std::int64_t total_tokens = 0;
  /// Positions (1.. of next_token) whose label is not kNoLabel, or sequences with a label.
  std::int64_t supervised_tokens = 0;
  std::vector<DataFile> files;
  std::vector<Truncation> truncated;
  std::vector<std::string> notes;  ///< one-line remarks to be said aloud (tails dropped, cuts)

 private:
  /// "data.jsonl:12" as its text up to the number, and the number: lines may be millions.
  struct Origin {
    std::size_t start;  ///< index into origin_starts_
    std::int64_t number = kNoNumber;
  };
  static constexpr std::int64_t kNoNumber = -1;
  void append_origin(std::string_view origin);
  std::string origin_of(std::size_t index) const;

  // A deque never holds its old items and its new ones at once.
  std::deque<std::int32_t> ids_;
  std::deque<std::int32_t> labels_;  ///< empty as long as each label is its token
  std::vector<std::size_t> ends_;    ///< one past the last token of each sequence
  std::vector<Origin> origins_;
  std::vector<std::string> origin_starts_;
  std::string table_origin_;
  std::size_t rows_ = 0;
};

/// Reads all files in the order given. Mixing .safetensors with token files is an Error(usage), as
/// is an unknown ending; a data set without any example is an Error(malformed).
Dataset load_dataset(const std::vector<std::filesystem::path>& files, const DataOptions& options);

/// Order of one epoch: 0..size-1, or with `shuffle` a Fisher-Yates permutation drawn from
/// CounterRandom(seed, stream of this epoch). The same on every machine.
std::vector<std::size_t> epoch_order(std::size_t size, std::uint64_t epoch, std::uint64_t seed,
                                     bool shuffle);

/// Which examples make up batch k of a run: positions k*batch_size .. (k+1)*batch_size-1 of the
/// endless sequence epoch 0, epoch 1, ... (a batch may reach into the next epoch; none is short).
/// A pure function of (size, batch_size, seed, shuffle, k), so a resumed run needs only its step.
/// With `shuffle` off this is `(k*batch_size + i) mod size`. With gradient accumulation k counts
/// micro-batches: step * grad_accum + micro_batch.
class BatchPlan {
 public:
  /// Throws Error(usage) when size or batch_size is 0.
  BatchPlan(std::size_t size, std::size_t batch_size, std::uint64_t seed, bool shuffle);

  /// Makes batches of examples of similar length, `lengths` by example: the whole batches of an
  /// epoch are cut into windows of 50, the examples of a window sorted by length, and its batches
  /// visited in an order of their own. An epoch still visits each example once, and batch k is
  /// still a function of its number.
  void group_by_length(std::vector<std::int64_t> lengths);

  /// Indices into the data set. Remembers the epoch's order between calls; not thread-safe.
  std::vector<std::size_t> batch(std::uint64_t k);

  /// Batches needed to visit every example `epochs` times, rounded up.
  std::uint64_t batches_for(double epochs) const;

 private:
  std::vector<std::size_t> positions(std::uint64_t first, std::uint64_t count);
  std::vector<std::size_t> grouped_batch(std::uint64_t k, std::uint64_t epoch);

  std::size_t size_;
  std::size_t batch_size_;
  std::uint64_t seed_;
  bool shuffle_;
  std::uint64_t cached_epoch_ = 0;
  std::vector<std::size_t> order_;
  std::vector<std::int64_t> lengths_;  ///< empty: not grouped
  std::uint64_t cached_window_ = 0;
  std::vector<std::size_t> window_;  ///< its examples, by length
};

}  // namespace lora
