#include "engine/train/training_data.h"

#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "lora/base/error.h"
#include "lora/text/chat_template.h"
#include "lora/text/tokenizer.h"

namespace lora::engine {
namespace {

std::filesystem::path directory_of(const Checkpoint& base) {
  std::error_code ignored;
  return std::filesystem::is_directory(base.path, ignored) ? base.path : base.path.parent_path();
}

std::optional<Tokenizer> tokenizer_in(const std::filesystem::path& directory,
                                      const std::vector<std::string>& added) {
  std::error_code ignored;
  if (!std::filesystem::exists(directory / "tokenizer.json", ignored)) return std::nullopt;
  return Tokenizer::from_directory(directory, added);
}

Error misfit(const Dataset& data, const std::string& found, const std::string& expected) {
  return Error(ErrorKind::incompatible, "cannot train on " + data.files.front().path.string() +
                                            ": " + found + ", the base expects " + expected)
      .in_file(data.files.front().path.string());
}

// A problem_type that is not set is what the labels say, as in transformers.
LabelOptions labels_of(const TokenModel& model) {
  LabelOptions labels;
  const HeadConfig& head = model.head;
  if (model.is_causal) return labels;
  labels.use = head.kind == HeadConfig::Kind::sequence_classification ? LabelUse::sequence
                                                                      : LabelUse::each_token;
  labels.count = head.is_classifier() ? head.num_labels : model.vocab_size;
  const std::string& problem = head.problem_type;
  labels.may_be_class =
      problem.empty() ? head.num_labels > 1 : problem == "single_label_classification";
  labels.may_be_values = problem != "single_label_classification";
  return labels;
}

void check_table(const Dataset& data, const MlpConfig& mlp) {
  const std::int64_t features = mlp.hidden_sizes.front();
  const std::int64_t outputs = mlp.hidden_sizes.back();
  if (data.x.shape.at(1) != features)
    throw misfit(data, "x is " + shape_to_string(data.x.shape),
                 "[rows, " + std::to_string(features) + "]");
  if (data.y.dtype == DType::f32) {
    if (data.y.shape.size() != 2 || data.y.shape[1] != outputs)
      throw misfit(data, "y is " + shape_to_string(data.y.shape),
                   "[rows, " + std::to_string(outputs) + "]");
    return;
  }
  for (std::int64_t row = 0; row < data.y.numel(); ++row) {
    std::int64_t label = 0;
    std::memcpy(&label, data.y.bytes.data() + row * static_cast<std::int64_t>(sizeof label),
                sizeof label);
    if (label < 0 || label >= outputs)
      throw misfit(data,
                   "y holds class " + std::to_string(label) + " in row " + std::to_string(row),
                   "classes below " + std::to_string(outputs));
  }
}

Error unusable(const std::string& what, const Dataset& data, const std::string& reason) {
  const std::string file = data.files.front().path.string();
  return Error(ErrorKind::usage, what + " " + file + ": " + reason).in_file(file);
}

// Values have no classes to smooth over, and an mlp's loss has neither term.
void require_loss_of_classes(const TrainOptions& options, const Dataset& data) {
  if (options.label_smoothing == 0 && options.z_loss == 0) return;
  const bool has_values = data.label_use == LabelUse::sequence && data.y.dtype == DType::f32;
  if (data.is_tabular || has_values)
    throw unusable("cannot train with --label-smoothing or --z-loss on", data,
                   "they belong to the cross entropy over tokens or classes of text");
}

void require_packable(const Dataset& data) {
  const auto refuse = [&](const char* reason) {
    return unusable("cannot pack", data, reason).with_hint("leave --pack out");
  };
  if (data.is_tabular) throw refuse("rows of a table have no length");
  if (data.label_use == LabelUse::sequence)
    throw refuse("a classifier of sequences gives one answer a row, so a row holds one sequence");
  if (data.label_use == LabelUse::each_token)
    throw refuse("the model predicts no next token, and looks ahead into whatever shares its row");
}

std::string packing_text(const DataRows& rows, std::int64_t capacity) {
  char percent[16];
  std::snprintf(percent, sizeof percent, "%.1f", 100 * rows.fill());
  return "packed " + std::to_string(rows.examples().size()) + " documents into " +
         std::to_string(rows.size()) + " rows of " + std::to_string(capacity) + " tokens, " +
         percent + " % full";
}

}  // namespace

DataRows load_training_data(const TrainOptions& options,
                            const std::vector<std::filesystem::path>& files, const Sinks& sinks) {
  const Checkpoint& base = *options.base;
  const std::filesystem::path directory = directory_of(base);
  const std::optional<Tokenizer> tokenizer = tokenizer_in(directory, options.add_tokens);
  const std::optional<ChatTemplate> chat_template = ChatTemplate::from_directory(directory);
  DataOptions data_options;
  data_options.tokenizer = tokenizer ? &*tokenizer : nullptr;
  data_options.chat_template = chat_template ? &*chat_template : nullptr;
  data_options.seq_len = options.seq_len;
  data_options.loss_on = options.loss_on == "completion" ? LossOn::completion : LossOn::all;
  data_options.threads = options.threads;
  const auto tokens = base.config ? base.config->token_model() : std::nullopt;
  if (tokens) {
    data_options.labels = labels_of(*tokens);
    data_options.max_positions = tokens->max_positions;
    data_options.vocab_size = tokens->vocab_size;
  }
  Dataset data = load_dataset(files, data_options);
  for (const std::string& note : data.notes) sinks.warning(note);
  if (tokens && data.is_tabular) throw misfit(data, "it holds tables x and y", "text or token ids");
  if (base.config && base.config->mlp) {
    if (!data.is_tabular) throw misfit(data, "it holds sequences of tokens", "tables x and y");
    check_table(data, *base.config->mlp);
  }
  require_loss_of_classes(options, data);
  if (options.group_by_length && data.is_tabular)
    throw unusable("cannot group", data, "rows of a table have no length")
        .with_hint("leave --group-by-length out");
  if (!options.pack) return DataRows(std::move(data));
  require_packable(data);
  DataRows rows(std::move(data), options.seq_len, options.seed, options.shuffle);
  sinks.info(packing_text(rows, options.seq_len));
  return rows;
}

std::vector<RecordedFile> recorded_files(const Dataset& data) {
  std::vector<RecordedFile> files;
  for (const DataFile& file : data.files) files.push_back({file.path, file.digest});
  return files;
}

void require_same_files(const std::vector<RecordedFile>& recorded, const Dataset& actual,
                        const std::filesystem::path& run_dir) {
  if (recorded.size() != actual.files.size())
    throw Error(ErrorKind::incompatible,
                "cannot resume " + run_dir.string() + ": " + std::to_string(actual.files.size()) +
                    " data files were given, the run has " + std::to_string(recorded.size()));
  std::string changed;
  for (std::size_t i = 0; i < recorded.size(); ++i)
    if (actual.files[i].digest != recorded[i].digest)
      changed += (changed.empty() ? "" : ", ") + actual.files[i].path.string();
  if (changed.empty()) return;
  throw Error(ErrorKind::incompatible,
              "cannot resume " + run_dir.string() + ": data has changed since: " + changed)
      .in_file(run_dir.string())
      .with_hint("resume with the data the run was started on, or start a new run");
}

}  // namespace lora::engine
