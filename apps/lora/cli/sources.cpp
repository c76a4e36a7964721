#include "cli/sources.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "lora/base/error.h"
#include "lora/checkpoint/train_run.h"

namespace lora::cli {

std::filesystem::path resolve_adapter(const std::string& path, Context& context) {
  if (!is_run_directory(path)) return path;
  const auto adapter = adapter_of_run(path);
  context.console.note("using " + adapter.string() + " of run " + path);
  return adapter;
}

WeightedPath split_weight(const std::string& argument) {
  const std::size_t at = argument.rfind('@');
  if (at == std::string::npos || at == 0 || at + 1 == argument.size()) return {argument, 1};
  const std::string path = argument.substr(0, at), number = argument.substr(at + 1);
  char* end = nullptr;
  const double weight = std::strtod(number.c_str(), &end);
  std::error_code ignored;
  const bool is_number = end == number.c_str() + number.size() && !std::isspace(number[0]);
  if (!is_number ||
      (!std::filesystem::exists(path, ignored) && std::filesystem::exists(argument, ignored)))
    return {argument, 1};
  if (!std::isfinite(weight))
    throw Error(ErrorKind::usage,
                "cannot use \"" + number + "\" as the weight of " + path + ", expected a number");
  return {path, weight};
}

void note_taken_whole(const std::string& path, const Adapter& adapter, double weight,
                      Context& context) {
  if (weight != 1 && (!adapter.replacements.empty() || !adapter.tokens.empty()))
    context.console.note("what " + path +
                         " replaces (saved modules, biases, token rows) is taken whole: a "
                         "weight scales LoRA updates only");
}

WeightedAdapter open_weighted(const std::string& argument,
                              const std::optional<std::string>& adapter_config, Context& context) {
  const WeightedPath source = split_weight(argument);
  WeightedAdapter one{
      open_adapter(resolve_adapter(source.path, context), adapter_config_from(adapter_config)),
      source.weight};
  note_taken_whole(source.path, one.adapter, one.weight, context);
  return one;
}

std::optional<AdapterConfig> adapter_config_from(const std::optional<std::string>& file) {
  if (!file) return std::nullopt;
  return read_adapter_config(*file);
}

Checkpoint open_base(const std::string& source, const OpenCheckpointOptions& options,
                     Context& context) {
  Checkpoint base = open_checkpoint(source, options, context.huggingface_caches());
  for (const std::string& note : base.notes) context.console.note(note);
  return base;
}

Checkpoint open_base_for(const std::optional<std::string>& source, const AdapterConfig& config,
                         const OpenCheckpointOptions& options, Context& context) {
  if (source) return open_base(*source, options, context);
  const std::string named = config.base_model_name_or_path.value_or("");
  if (named.empty())
    throw Error(ErrorKind::usage, "missing --base: the adapter names no base")
        .with_hint("give the base it was trained on: --base DIR");
  try {
    Checkpoint base = open_base(named, options, context);
    context.console.note("no --base given, using the base the adapter names: " + named);
    return base;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::not_found) throw;
    throw Error(ErrorKind::usage, "missing --base: the adapter names " + named +
                                      ", which is neither a local path nor in the local cache")
        .with_hint("give the base it was trained on: --base DIR");
  }
}

DType float_dtype(const std::string& choice) {
  std::string upper = choice;
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  return *dtype_from_string(upper);
}

BaseDtype base_dtype_named(const std::string& choice) {
  if (choice == "nf4") return BaseDtype::nf4;
  return choice == "int8" ? BaseDtype::int8 : BaseDtype::native;
}

std::string peft_task(const std::string& choice) {
  if (choice == "causal-lm") return "CAUSAL_LM";
  if (choice == "seq-cls" || choice == "regression") return "SEQ_CLS";
  return choice == "token-cls" ? "TOKEN_CLS" : choice;
}

void add_base_options(OptionSet& options, OpenCheckpointOptions& target) {
  options.choice("--activation", target.activation,
                 {"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "identity"},
                 "between the layers of an mlp whose file does not say (default: relu)");
  options.choice("--final-activation", target.final_activation,
                 {"none", "log_softmax", "softmax", "sigmoid"},
                 "after the last layer of such an mlp (default: none)");
}

}  // namespace lora::cli
