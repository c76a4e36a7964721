#include "lora/checkpoint/checkpoint.h"

#include <system_error>
#include <utility>

#include "checkpoint/aliases.h"
#include "checkpoint/infer_mlp.h"
#include "checkpoint/mlp_config.h"
#include "checkpoint/weight_reader.h"
#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

bool is_there(const stdfs::path& path) {
  std::error_code ignored;
  return stdfs::exists(path, ignored);
}

void check_mlp_tensors(const Checkpoint& checkpoint) {
  const MlpConfig& mlp = *checkpoint.config->mlp;
  for (std::size_t i = 0; i < mlp.layers.size(); ++i) {
    const std::string name = mlp.layers[i] + ".weight";
    const std::vector<std::int64_t> expected{mlp.hidden_sizes[i + 1], mlp.hidden_sizes[i]};
    const Tensor* weight = checkpoint.find(name);
    if (weight != nullptr && weight->shape == expected) continue;
    throw Error(ErrorKind::malformed,
                "config.json of " + checkpoint.path.string() +
                    " does not fit its weights: " + name +
                    (weight == nullptr ? " is missing" : " is " + shape_to_string(weight->shape)) +
                    ", expected " + shape_to_string(expected))
        .in_file(checkpoint.path.string())
        .in_tensor(name);
  }
}

void override_activations(Checkpoint& checkpoint, const OpenCheckpointOptions& options) {
  if (!options.activation && !options.final_activation) return;
  if (!checkpoint.config || !checkpoint.config->mlp)
    throw Error(ErrorKind::usage,
                "cannot set an activation for " + checkpoint.path.string() + ": it is no mlp")
        .in_file(checkpoint.path.string());
  MlpConfig& mlp = *checkpoint.config->mlp;
  if (options.activation) mlp.activation = *options.activation;
  if (options.final_activation) mlp.final_activation = *options.final_activation;
  check_mlp_activations(mlp.activation, mlp.final_activation);
}

void infer_config(Checkpoint& checkpoint, const std::vector<std::string>& file_order) {
  InferredMlp inferred = infer_mlp(checkpoint.tensors, file_order);
  if (!inferred.config) {
    checkpoint.not_inferred_because = std::move(inferred.reason);
    return;
  }
  checkpoint.is_inferred = true;
  checkpoint.config.emplace();
  checkpoint.config->model_type = "mlp";
  checkpoint.config->mlp = std::move(inferred.config);
}

void finish_inferred(Checkpoint& checkpoint) {
  ModelConfig& config = *checkpoint.config;
  const DType dtype = checkpoint.tensors.begin()->second.dtype;
  config.dtype = config_dtype_name(dtype);
  config.document = Json(mlp_document(*config.mlp, config.dtype));
  std::string sizes;
  for (const std::int64_t size : config.mlp->hidden_sizes)
    sizes += (sizes.empty() ? "" : "-") + std::to_string(size);
  checkpoint.notes.push_back("no config.json: taken as an mlp " + sizes + " with " +
                             config.mlp->activation + " between its layers and final activation " +
                             config.mlp->final_activation);
}

void read_config(Checkpoint& checkpoint) {
  const stdfs::path path = checkpoint.directory / "config.json";
  checkpoint.config = parse_model_config(read_json_file(path), path.string());
  const stdfs::path generation = checkpoint.directory / "generation_config.json";
  if (is_there(generation))
    apply_generation_config(*checkpoint.config, read_json_file(generation), generation.string());
}

void complete(Checkpoint& checkpoint, const WeightFiles& weights,
              const OpenCheckpointOptions& options) {
  const std::vector<std::string> file_order = read_weights(checkpoint, weights);
  if (checkpoint.tensors.empty())
    throw Error(ErrorKind::malformed,
                "cannot open base " + checkpoint.path.string() + ": it holds no tensors")
        .in_file(checkpoint.path.string());
  apply_ties(checkpoint);
  if (!checkpoint.directory.empty() && is_there(checkpoint.directory / kBaseLockName))
    restore_aliases(checkpoint, read_base_lock(checkpoint.directory / kBaseLockName).aliases);
  if (!checkpoint.config) infer_config(checkpoint, file_order);
  override_activations(checkpoint, options);
  if (checkpoint.is_inferred) finish_inferred(checkpoint);
  if (checkpoint.config && checkpoint.config->mlp) check_mlp_tensors(checkpoint);
  if (options.config_required && !checkpoint.config)
    throw Error(ErrorKind::unsupported,
                "cannot tell the architecture of " + checkpoint.path.string() +
                    ": there is no config.json and " + checkpoint.not_inferred_because)
        .in_file(checkpoint.path.string())
        .with_hint("put the model's config.json beside the weights and give the folder as base");
}

// A weights file counts as its folder when the folder as a source would mean this very file.
stdfs::path directory_meaning(const stdfs::path& file) {
  const stdfs::path folder = file.has_parent_path() ? file.parent_path() : stdfs::path(".");
  if (!is_there(folder / "config.json")) return {};
  try {
    if (find_weight_files(folder).single.filename() != file.filename()) return {};
    const Json document = read_json_file(folder / "config.json");
    const Json* model_type = document.find("model_type");
    return model_type != nullptr && model_type->is_string() ? folder : stdfs::path();
  } catch (const Error&) {
    return {};
  }
}

Checkpoint open_file(const stdfs::path& file, const OpenCheckpointOptions& options) {
  Checkpoint checkpoint;
  checkpoint.path = file;
  if (file.filename().string().ends_with(".index.json")) {
    complete(checkpoint, {{}, file}, options);
    return checkpoint;
  }
  checkpoint.directory = directory_meaning(file);
  if (!checkpoint.directory.empty()) {
    read_config(checkpoint);
    checkpoint.notes.push_back("the config.json beside " + file.filename().string() + " is used");
  }
  complete(checkpoint, {file, {}}, options);
  return checkpoint;
}

// Without a configuration a folder is a checkpoint when its lock says so: merge and unmerge write
// such ones for bare state dicts.
Checkpoint open_directory(const stdfs::path& directory, const OpenCheckpointOptions& options) {
  const bool has_config = is_there(directory / "config.json");
  if (!has_config && !is_there(directory / kBaseLockName)) {
    Error error(ErrorKind::not_found,
                "cannot open base " + directory.string() + ": no config.json in it");
    error.in_file(directory.string());
    if (is_there(directory / "adapter_config.json"))
      error.with_hint("this is an adapter: give the model it was trained on as base");
    else
      error.with_hint("a state dict without config.json is given as the file itself");
    throw error;
  }
  Checkpoint checkpoint;
  checkpoint.path = directory;
  checkpoint.directory = directory;
  if (has_config) read_config(checkpoint);
  complete(checkpoint, find_weight_files(directory), options);
  return checkpoint;
}

}  // namespace

const Tensor* Checkpoint::find(const std::string& base_name) const {
  const auto alias = aliases.find(base_name);
  const auto found = tensors.find(alias == aliases.end() ? base_name : alias->second);
  return found == tensors.end() ? nullptr : &found->second;
}

Checkpoint open_checkpoint(const std::string& source, const OpenCheckpointOptions& options,
                           const std::vector<stdfs::path>& hf_cache) {
  if (source.empty()) throw Error(ErrorKind::usage, "cannot open base: its path is empty");
  const stdfs::path path(source);
  std::error_code ignored;
  if (stdfs::is_directory(path, ignored)) return open_directory(path, options);
  if (is_there(path)) return open_file(path, options);
  if (const auto snapshot = find_cached_model(source, hf_cache)) {
    Checkpoint checkpoint = open_directory(*snapshot, options);
    checkpoint.notes.insert(checkpoint.notes.begin(),
                            source + " found in the local cache: " + snapshot->string());
    return checkpoint;
  }
  throw Error(ErrorKind::not_found, "cannot open base " + source +
                                        ": no such file or directory, and no model of that name "
                                        "in the local Hugging Face cache")
      .in_file(source)
      .with_hint("nothing is ever downloaded: check the path, or fetch the model first");
}

}  // namespace lora
