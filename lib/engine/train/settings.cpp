#include "engine/train/settings.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>
#include <type_traits>
#include <utility>

#include "engine/train/new_layer.h"
#include "engine/train/schedule.h"
#include "lora/adapter/config.h"
#include "lora/base/error.h"

namespace lora::engine {
namespace {

// The one list of recorded settings. steps and epochs may grow on resume and are treated apart.
template <typename Options, typename Visitor>
void for_each_setting(Options& options, Visitor&& visit) {
  visit("batch_size", options.batch_size);
  visit("grad_accum", options.grad_accum);
  visit("seq_len", options.seq_len);
  visit("lr", options.lr);
  visit("schedule", options.schedule);
  visit("warmup", options.warmup);
  visit("weight_decay", options.weight_decay);
  visit("max_grad_norm", options.max_grad_norm);
  visit("beta1", options.beta1);
  visit("beta2", options.beta2);
  visit("eps", options.eps);
  visit("compute", options.compute);
  visit("base_dtype", options.base_dtype);
  visit("seed", options.seed);
  visit("shuffle", options.shuffle);
  visit("loss_on", options.loss_on);
  visit("init", options.init);
  visit("add_tokens", options.add_tokens);
  visit("eval_every", options.eval_every);
  visit("early_stop", options.early_stop);
  visit("save_every", options.save_every);
  visit("keep", options.keep);
  visit("layer_checkpointing", options.layer_checkpointing);
  visit("device", options.device);
  visit("pack", options.pack);
  visit("group_by_length", options.group_by_length);
  visit("label_smoothing", options.label_smoothing);
  visit("z_loss", options.z_loss);
}

// Settings that run.json of an earlier version lacks: such a run had their defaults.
constexpr std::string_view kLaterSettings[] = {"base_dtype", "pack", "group_by_length",
                                               "label_smoothing", "z_loss"};

// Null: missing where it must not be.
const Json* recorded_setting(const TrainRun& run, const JsonObject& defaults,
                             std::string_view name) {
  const Json* recorded = run.config.find(name);
  const bool is_later = std::find(std::begin(kLaterSettings), std::end(kLaterSettings), name) !=
                        std::end(kLaterSettings);
  return recorded == nullptr && is_later ? defaults.find(name) : recorded;
}

Json to_json_value(bool value) { return value; }
Json to_json_value(std::int64_t value) { return value; }
Json to_json_value(std::uint64_t value) { return value; }
Json to_json_value(double value) { return value; }
Json to_json_value(const std::string& value) { return value; }
Json to_json_value(Compute value) {
  return value == Compute::bf16 ? "bf16" : value == Compute::f32 ? "f32" : "base";
}
Json to_json_value(const std::vector<std::string>& value) {
  return JsonArray(value.begin(), value.end());
}
Json to_json_value(BaseDtype value) { return std::string(to_string(value)); }
template <typename T>
Json to_json_value(const std::optional<T>& value) {
  return value ? to_json_value(*value) : Json(nullptr);
}

template <typename T>
bool assign(T& target, const std::optional<T>& value) {
  if (value) target = *value;
  return value.has_value();
}
bool from_json_value(const Json& json, bool& value) { return assign(value, json.as_bool()); }
bool from_json_value(const Json& json, std::int64_t& value) { return assign(value, json.as_int()); }
bool from_json_value(const Json& json, std::uint64_t& value) {
  return assign(value, json.as_uint());
}
bool from_json_value(const Json& json, double& value) { return assign(value, json.as_double()); }
bool from_json_value(const Json& json, std::string& value) {
  if (json.as_string() != nullptr) value = *json.as_string();
  return json.is_string();
}
bool from_json_value(const Json& json, std::vector<std::string>& value) {
  if (!json.is_array()) return false;
  value.clear();
  for (const Json& item : *json.as_array())
    if (item.is_string()) value.push_back(*item.as_string());
  return value.size() == json.as_array()->size();
}
template <typename T>
bool from_name(const Json& json, std::initializer_list<T> candidates, T& value) {
  for (const T candidate : candidates) {
    if (to_json_value(candidate) != json) continue;
    value = candidate;
    return true;
  }
  return false;
}
bool from_json_value(const Json& json, Compute& value) {
  return from_name(json, {Compute::base, Compute::f32, Compute::bf16}, value);
}
bool from_json_value(const Json& json, BaseDtype& value) {
  return from_name(json, {BaseDtype::native, BaseDtype::int8, BaseDtype::nf4}, value);
}
template <typename T>
bool from_json_value(const Json& json, std::optional<T>& value) {
  if (json.is_null()) {
    value.reset();
    return true;
  }
  T inner{};
  if (!from_json_value(json, inner)) return false;
  value = inner;
  return true;
}

// Flags that set fields of adapter_config.json.
constexpr std::pair<const char*, const char*> kAdapterFlags[] = {
    {"rank", "r"},
    {"r", "r"},
    {"alpha", "lora_alpha"},
    {"lora_alpha", "lora_alpha"},
    {"dropout", "lora_dropout"},
    {"lora_dropout", "lora_dropout"},
    {"target_modules", "target_modules"},
    {"exclude_modules", "exclude_modules"},
    {"rank_pattern", "rank_pattern"},
    {"alpha_pattern", "alpha_pattern"},
    {"layers", "layers_to_transform"},
    {"layers_to_transform", "layers_to_transform"},
    {"modules_to_save", "modules_to_save"},
    {"trainable_tokens", "trainable_token_indices"},
    {"trainable_token_indices", "trainable_token_indices"},
    {"bias", "bias"},
    {"lora_bias", "lora_bias"},
    {"rslora", "use_rslora"},
    {"use_rslora", "use_rslora"},
    {"dora", "use_dora"},
    {"use_dora", "use_dora"},
    {"task", "task_type"},
};

const char* flag_of(std::string_view setting) {
  if (setting == "beta1" || setting == "beta2") return "betas";
  if (setting == "layer_checkpointing") return "checkpointing";
  return nullptr;
}

bool is_given(const TrainOptions& options, std::string_view name) {
  return std::find(options.given.begin(), options.given.end(), name) != options.given.end();
}

std::string compare(std::string flag, const Json& given, const Json& recorded) {
  std::replace(flag.begin(), flag.end(), '_', '-');
  return "--" + flag + " " + dump_json(given, kCompactStyle) + " (the run has " +
         dump_json(recorded, kCompactStyle) + ")";
}

void require(bool holds, const std::string& flag, const Json& found, const char* expected) {
  if (!holds)
    throw Error(ErrorKind::usage,
                "--" + flag + " is " + dump_json(found, kCompactStyle) + ", expected " + expected);
}

void refuse_conflicts(const TrainOptions& options, const TrainRun& run) {
  std::vector<std::string> conflicts;
  const JsonObject defaults = settings_to_json({});
  for_each_setting(options, [&](const char* name, const auto& value) {
    const char* flag = flag_of(name) ? flag_of(name) : name;
    const Json given = to_json_value(value);
    const Json* recorded = recorded_setting(run, defaults, name);
    if (is_given(options, flag) && recorded != nullptr && given != *recorded)
      conflicts.push_back(compare(flag, given, *recorded));
  });
  if (options.adapter_config != nullptr) {
    const Json given = to_json(*options.adapter_config);
    for (const auto& [flag, field] : kAdapterFlags) {
      const Json* recorded = run.adapter_config.find(field);
      const Json* wanted = given.find(field);
      if (is_given(options, flag) && recorded != nullptr && wanted != nullptr &&
          *wanted != *recorded && *wanted != Json("all-linear"))
        conflicts.push_back(compare(flag, *wanted, *recorded));
    }
  }
  if (conflicts.empty()) return;
  std::string list;
  for (const std::string& conflict : conflicts) list += (list.empty() ? "" : ", ") + conflict;
  throw Error(ErrorKind::usage,
              "cannot resume " + run.path.string() + " with other settings: " + list)
      .with_hint("only --steps and --epochs may change; leave the other flags out");
}

}  // namespace

void check_settings(const TrainOptions& o) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (o.steps && o.epochs)
    throw Error(ErrorKind::usage, "--steps and --epochs were both given, expected one of them");
  if (o.steps) require(*o.steps > 0, "steps", *o.steps, "at least 1");
  if (o.epochs) require(finite(*o.epochs) && *o.epochs > 0, "epochs", *o.epochs, "more than 0");
  require(o.batch_size > 0, "batch-size", o.batch_size, "at least 1");
  require(o.grad_accum > 0, "grad-accum", o.grad_accum, "at least 1");
  require(o.seq_len > 1, "seq-len", o.seq_len, "at least 2");
  require(finite(o.lr) && o.lr > 0, "lr", o.lr, "a number above 0");
  require(finite(o.weight_decay) && o.weight_decay >= 0, "weight-decay", o.weight_decay,
          "a number from 0 on");
  require(finite(o.max_grad_norm) && o.max_grad_norm >= 0, "max-grad-norm", o.max_grad_norm,
          "a number from 0 on (0 turns clipping off)");
  require(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "betas",
          JsonArray{o.beta1, o.beta2}, "two numbers from 0 to below 1");
  require(finite(o.eps) && o.eps > 0, "eps", o.eps, "a number above 0");
  require(o.eval_every >= 0, "eval-every", o.eval_every, "at least 0");
  require(o.early_stop >= 0, "early-stop", o.early_stop, "at least 0");
  require(o.save_every >= 0, "save-every", o.save_every, "at least 0");
  require(o.keep > 0, "keep", o.keep, "at least 1");
  require(o.loss_on == "all" || o.loss_on == "completion", "loss-on", o.loss_on,
          "all or completion");
  require(finite(o.label_smoothing) && o.label_smoothing >= 0 && o.label_smoothing < 1,
          "label-smoothing", o.label_smoothing, "a number from 0 to below 1");
  require(finite(o.z_loss) && o.z_loss >= 0, "z-loss", o.z_loss, "a number from 0 on");
  if (o.group_by_length && o.pack)
    throw Error(ErrorKind::usage,
                "--group-by-length and --pack were both given: packed rows are all about full");
  if (o.group_by_length && !o.shuffle)
    throw Error(ErrorKind::usage,
                "--group-by-length changes the order, which --no-shuffle wants as it is");
  require(init_lora_weights_of(o.init).has_value(), "init", o.init,
          "default, gaussian, zero, orthogonal, pissa, pissa_niter_N or olora");
  if (o.early_stop > 0 && (o.eval_data.empty() || o.eval_every == 0))
    throw Error(ErrorKind::usage, "--early-stop needs --eval-data and --eval-every");
  if (o.eval_every > 0 && o.eval_data.empty())
    throw Error(ErrorKind::usage, "--eval-every needs --eval-data");
  if (o.data.empty())
    throw Error(ErrorKind::usage, "no training data was given").with_hint("pass --data FILE");
  if (!o.add_tokens.empty() && o.initial_adapter != nullptr && !o.resume)
    throw Error(ErrorKind::usage, "--add-tokens needs a new adapter, found --adapter");
  schedule_from_string(o.schedule);
  warmup_steps(o.warmup, 1);
}

JsonObject settings_to_json(const TrainOptions& options) {
  JsonObject config{{"steps", to_json_value(options.steps)},
                    {"epochs", to_json_value(options.epochs)}};
  for_each_setting(
      options, [&](const char* name, const auto& value) { config[name] = to_json_value(value); });
  return config;
}

TrainOptions resumed_options(const TrainOptions& options, const TrainRun& run) {
  refuse_conflicts(options, run);
  TrainOptions resumed = options;
  resumed.base_source = run.base_source;
  const JsonObject defaults = settings_to_json({});
  const auto read = [&](const char* name, auto& value) {
    const Json* recorded = recorded_setting(run, defaults, name);
    if (recorded == nullptr || !from_json_value(*recorded, value))
      throw Error(ErrorKind::malformed, "cannot resume " + run.path.string() + ": config." + name +
                                            " of run.json is missing or of another type")
          .in_file((run.path / kRunRecordName).string());
  };
  for_each_setting(resumed, read);
  if (!options.steps && !options.epochs) {
    read("steps", resumed.steps);
    read("epochs", resumed.epochs);
  }
  const auto paths_of = [](const std::vector<RecordedFile>& files) {
    std::vector<std::filesystem::path> paths;
    for (const RecordedFile& file : files) paths.push_back(file.path);
    return paths;
  };
  // Given paths win: the files may have moved, and their digests are compared anyway.
  if (options.data.empty()) resumed.data = paths_of(run.data);
  if (options.eval_data.empty()) resumed.eval_data = paths_of(run.eval_data);
  return resumed;
}

}  // namespace lora::engine
