#include "commands/lora_flags.h"

#include <cmath>
#include <limits>

#include "lora/base/error.h"

namespace lora::cli {
namespace {

ModuleSelector selector_of(const std::vector<std::string>& values, const char* flag) {
  if (values.empty()) return std::monostate{};
  for (const std::string& value : values) {
    if (!value.starts_with("re:")) continue;
    if (values.size() > 1)
      throw Error(ErrorKind::usage,
                  std::string(flag) + ": a regular expression stands alone, found it among names");
    return value.substr(3);
  }
  if (values.size() == 1 && values.front() == "all-linear") return values.front();
  return values;
}

// "q_proj=16,re-free pattern=8": the last '=' splits, so that patterns may hold one.
NumberPattern pattern_of(const std::vector<std::string>& items, const char* flag, bool is_rank) {
  NumberPattern pattern;
  for (const std::string& item : items) {
    const auto equals = item.rfind('=');
    if (equals == std::string::npos || equals == 0)
      throw Error(ErrorKind::usage,
                  "cannot use \"" + item + "\" for " + flag + ", expected PATTERN=NUMBER");
    const std::string value = item.substr(equals + 1);
    pattern.emplace_back(item.substr(0, equals),
                         is_rank ? static_cast<double>(parse_integer(flag, value, 1))
                                 : parse_number(flag, value, -1e9, 1e9));
  }
  return pattern;
}

// "0-7,12"
std::vector<std::int64_t> layers_of(const std::string& text) {
  std::vector<std::int64_t> layers;
  std::size_t start = 0;
  while (start <= text.size()) {
    const auto comma = std::min(text.find(',', start), text.size());
    const std::string item = text.substr(start, comma - start);
    const auto dash = item.find('-');
    const std::int64_t first = parse_integer("--layers", item.substr(0, dash), 0);
    const std::int64_t last =
        dash == std::string::npos ? first : parse_integer("--layers", item.substr(dash + 1), first);
    if (last - first > 100000)
      throw Error(ErrorKind::usage,
                  "cannot use \"" + item + "\" for --layers, expected a range of layers");
    for (std::int64_t layer = first; layer <= last; ++layer) layers.push_back(layer);
    start = comma + 1;
  }
  return layers;
}

}  // namespace

void LoraFlags::add_to(OptionSet& options) {
  options.group("LoRA");
  const auto hidden = [&options](OptionSpec& spec) { spec.is_hidden = true; };
  options.integer("-r,--rank", rank_, 1, "rank of the updates");
  hidden(options.integer("--r", rank_, 1, "as --rank"));
  options.number("--alpha", alpha_, -1e9, 1e9, "the update is applied alpha / rank times");
  hidden(options.number("--lora-alpha", alpha_, -1e9, 1e9, "as --alpha"));
  options.number("--dropout", dropout_, 0, 0.999999, "dropout in front of A, in training");
  hidden(options.number("--lora-dropout", dropout_, 0, 0.999999, "as --dropout"));
  options.list("--target-modules", target_modules_, "NAMES",
               "module names, all-linear, or re:REGEX (default: PEFT's for the model type)");
  options.list("--exclude-modules", exclude_modules_, "NAMES",
               "module names or re:REGEX to leave out");
  options.list("--rank-pattern", rank_pattern_, "PATTERN=N,...", "another rank for some modules");
  options.list("--alpha-pattern", alpha_pattern_, "PATTERN=X,...",
               "another alpha for some modules");
  options.text("--layers", layers_, "0-7,12", "only these layers");
  hidden(options.text("--layers-to-transform", layers_, "0-7,12", "as --layers"));
  options.list("--modules-to-save", modules_to_save_, "NAMES", "modules trained and saved in full");
  options.choice("--bias", bias_, {"none", "all", "lora_only"},
                 "which biases are trained and saved");
  options.flag("--rslora", rslora_, "scale by alpha / sqrt(rank)");
  hidden(options.flag("--use-rslora", rslora_, "as --rslora"));
  options.flag("--dora", dora_, "learn the length of each output's weights by itself (DoRA)");
  hidden(options.flag("--use-dora", dora_, "as --dora"));
  options.flag("--lora-bias", lora_bias_, "give B a bias");
  options.list("--trainable-tokens", tokens_, "ID,...",
               "train the rows of these tokens in the embedding, and in a head tied to it");
  hidden(options.list("--trainable-token-indices", tokens_, "ID,...", "as --trainable-tokens"));
  options.text("--init", init_, "NAME",
               "first values of A and B: default, gaussian, zero, orthogonal; pissa, "
               "pissa_niter_N and olora take them out of the base's weights");
  options.choice("--task", task_, {"causal-lm"}, "task_type of the configuration");
}

AdapterConfig LoraFlags::config() const {
  AdapterConfig config;
  config.rank = rank_;
  config.alpha = alpha_;
  config.dropout = dropout_;
  config.use_rslora = rslora_;
  config.bias = bias_ == "all"         ? BiasMode::all
                : bias_ == "lora_only" ? BiasMode::lora_only
                                       : BiasMode::none;
  config.target_modules = selector_of(target_modules_, "--target-modules");
  config.exclude_modules = selector_of(exclude_modules_, "--exclude-modules");
  config.rank_pattern = pattern_of(rank_pattern_, "--rank-pattern", true);
  config.alpha_pattern = pattern_of(alpha_pattern_, "--alpha-pattern", false);
  if (layers_) config.layers_to_transform = layers_of(*layers_);
  config.modules_to_save = modules_to_save_;
  if (task_) config.task_type = "CAUSAL_LM";
  if (init_ == "gaussian") config.init_lora_weights = "gaussian";
  config.use_dora = dora_;
  config.lora_bias = lora_bias_;
  if (!tokens_.empty()) {
    JsonArray indices;
    for (const std::string& token : tokens_)
      indices.push_back(parse_integer("--trainable-tokens", token, 0));
    config.other["trainable_token_indices"] = std::move(indices);
  }
  return config;
}

}  // namespace lora::cli
