#include "engine/train/checkpoint_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/format/json.h"
#include "lora/format/safetensors.h"

namespace lora::engine {
namespace {

constexpr const char* kStateKey = "lora_train_state";
constexpr std::string_view kFirst = "first.";

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::string dump_state(const RunState& state) {
  return dump_json(JsonObject{{"version", 1},
                              {"step", state.step},
                              {"tokens", state.tokens},
                              {"first_loss", state.first_loss},
                              {"last_loss", state.last_loss},
                              {"eval_loss", json_of(state.eval_loss)},
                              {"best_eval_loss", json_of(state.best_eval_loss)},
                              {"best_step", state.best_step},
                              {"evaluated_step", state.evaluated_step},
                              {"evals_without_gain", state.evals_without_gain},
                              {"stopped_early", state.stopped_early}},
                   kCompactStyle);
}

class StateReader {
 public:
  StateReader(const Json& document, std::filesystem::path file)
      : document_(document), file_(std::move(file)) {}

  std::int64_t integer(const char* key) const {
    const auto value = member(key).as_int();
    if (!value) throw wrong(key, "an integer");
    return *value;
  }
  double number(const char* key) const {
    const auto value = member(key).as_double();
    if (!value) throw wrong(key, "a number");
    return *value;
  }
  bool flag(const char* key) const {
    const auto value = member(key).as_bool();
    if (!value) throw wrong(key, "true or false");
    return *value;
  }
  std::optional<double> optional_number(const char* key) const {
    return member(key).is_null() ? std::nullopt : std::optional(number(key));
  }

 private:
  const Json& member(const char* key) const {
    const Json* found = document_.find(key);
    if (found == nullptr) throw wrong(key, "to be there");
    return *found;
  }
  Error wrong(const char* key, const char* expected) const {
    return Error(ErrorKind::malformed, "cannot read the training state in " + file_.string() +
                                           ": " + key + " is missing or wrong, expected " +
                                           expected)
        .in_file(file_.string());
  }

  const Json& document_;
  std::filesystem::path file_;
};

RunState parse_state(const SafetensorsFile& file) {
  const auto text = file.metadata.find(kStateKey);
  if (text == file.metadata.end())
    throw Error(ErrorKind::malformed, "cannot read the training state in " + file.path.string() +
                                          ": no metadata key " + kStateKey)
        .in_file(file.path.string());
  const Json document = parse_json(text->second, file.path.string());
  const StateReader reader(document, file.path);
  if (reader.integer("version") != 1)
    throw Error(ErrorKind::unsupported,
                "the training state in " + file.path.string() + " has another version, expected 1")
        .in_file(file.path.string());
  RunState state;
  state.step = reader.integer("step");
  state.tokens = reader.integer("tokens");
  state.first_loss = reader.number("first_loss");
  state.last_loss = reader.number("last_loss");
  state.eval_loss = reader.optional_number("eval_loss");
  state.best_eval_loss = reader.optional_number("best_eval_loss");
  state.best_step = reader.integer("best_step");
  state.evaluated_step = reader.integer("evaluated_step");
  state.evals_without_gain = reader.integer("evals_without_gain");
  state.stopped_early = reader.flag("stopped_early");
  return state;
}

std::int64_t element_count(const TrainableParameter& parameter) {
  return static_cast<std::int64_t>(checked_numel(parameter.shape).value());
}

void fill_slice(at::Tensor& flat, const TrainableParameter& parameter, const SafetensorsFile& file,
                const std::string& name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    throw Error(ErrorKind::malformed, "cannot restore the training state: tensor " + name +
                                          " is missing in " + file.path.string())
        .in_file(file.path.string())
        .in_tensor(name);
  const Tensor& tensor = found->second;
  if (tensor.dtype != DType::f32 || tensor.shape != parameter.shape)
    throw Error(ErrorKind::malformed, "cannot restore the training state: tensor " + name + " is " +
                                          std::string(to_string(tensor.dtype)) + " " +
                                          shape_to_string(tensor.shape) + ", expected F32 " +
                                          shape_to_string(parameter.shape))
        .in_file(file.path.string())
        .in_tensor(name);
  at::Tensor staged = at::empty({element_count(parameter)}, at::kFloat);
  std::memcpy(staged.mutable_data_ptr(), tensor.bytes.data(), tensor.bytes.size());
  flat.narrow(0, parameter.offset, element_count(parameter)).copy_(staged);
}

}  // namespace

Tensor slice_of(const at::Tensor& flat, const TrainableParameter& parameter) {
  const at::Tensor piece =
      flat.narrow(0, parameter.offset, element_count(parameter)).to(at::kCPU).contiguous();
  return Tensor::from_f32(parameter.shape, std::span(piece.const_data_ptr<float>(),
                                                     static_cast<std::size_t>(piece.numel())));
}

TensorMap saved_tensors(const at::Tensor& flat, const FlatParameters& parameters) {
  TensorMap tensors;
  for (const TrainableParameter& parameter : parameters.layout)
    tensors[parameter.peft_key] = slice_of(flat, parameter).cast(parameter.saved_dtype);
  return tensors;
}

void write_state(AtomicDirectory& directory, const FlatParameters& parameters, AdamW& optimizer,
                 const RunState& state, const TensorMap& first_factors) {
  TensorMap tensors;
  for (const auto& [key, tensor] : first_factors) tensors[std::string(kFirst) + key] = tensor;
  for (const TrainableParameter& parameter : parameters.layout) {
    const std::string& key = parameter.peft_key;
    tensors["exp_avg." + key] = slice_of(optimizer.first_moment(), parameter);
    tensors["exp_avg_sq." + key] = slice_of(optimizer.second_moment(), parameter);
    if (parameter.saved_dtype != DType::f32)
      tensors["master." + key] = slice_of(parameters.values, parameter);
    if (state.best_values.defined())
      tensors["best." + key] = slice_of(state.best_values, parameter);
  }
  const Metadata metadata{{kStateKey, dump_state(state)}};
  auto file = directory.create(kStateName);
  write_safetensors(*file, sources_of(tensors), &metadata);
  file->sync_and_close();
}

RunState read_run_state(const std::filesystem::path& checkpoint) {
  return parse_state(read_safetensors(checkpoint / kStateName));
}

TensorMap read_first_factors(const std::filesystem::path& checkpoint) {
  const SafetensorsFile file = read_safetensors(checkpoint / kStateName);
  TensorMap factors;
  for (const auto& [name, tensor] : file.tensors)
    if (name.starts_with(kFirst)) factors[name.substr(kFirst.size())] = tensor;
  return factors;
}

RunState restore_state(const std::filesystem::path& checkpoint, FlatParameters& parameters,
                       AdamW& optimizer) {
  const SafetensorsFile file = read_safetensors(checkpoint / kStateName);
  RunState state = parse_state(file);
  bool has_best = false;
  for (const auto& [name, tensor] : file.tensors) has_best = has_best || name.starts_with("best.");
  if (has_best) state.best_values = at::empty_like(parameters.values);
  for (const TrainableParameter& parameter : parameters.layout) {
    const std::string& key = parameter.peft_key;
    fill_slice(optimizer.first_moment(), parameter, file, "exp_avg." + key);
    fill_slice(optimizer.second_moment(), parameter, file, "exp_avg_sq." + key);
    if (parameter.saved_dtype != DType::f32)
      fill_slice(parameters.values, parameter, file, "master." + key);
    if (has_best) fill_slice(state.best_values, parameter, file, "best." + key);
  }
  return state;
}

}  // namespace lora::engine
