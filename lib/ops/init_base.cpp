#include "lora/ops/init_base.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "lora/base/atomic_write.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/format/gguf.h"
#include "lora/format/sharded.h"
#include "lora/format/torch_file.h"
#include "ops/init_base_plan.h"
#include "ops/output_place.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr const char* kTorchName = "base_model.pth";

void check_request(const InitBaseOptions& options) {
  const int sources = (options.preset ? 1 : 0) + (options.arch ? 1 : 0) + (options.from ? 1 : 0);
  if (sources != 1)
    throw Error(ErrorKind::usage, "init-base got " + std::to_string(sources) +
                                      " of a preset, an architecture and a source, expected "
                                      "exactly one");
  if (options.output.empty()) throw Error(ErrorKind::usage, "init-base got an empty output path");
  const bool is_mlp_preset = options.preset && *options.preset == "mlp";
  if (!options.hidden_sizes.empty() && !is_mlp_preset)
    throw Error(ErrorKind::usage, "hidden sizes shape the preset mlp only");
  if ((options.activation || options.final_activation) && !is_mlp_preset && !options.from)
    throw Error(ErrorKind::usage,
                "an activation can be set for the preset mlp and for imports only");
  if (options.dtype && !is_float(*options.dtype))
    throw Error(ErrorKind::usage, "cannot write weights as " +
                                      std::string(to_string(*options.dtype)) +
                                      ", expected F32, BF16, F16 or F64");
}

std::uint64_t bytes_of(const TensorSource& tensor) {
  const auto count = checked_numel(tensor.shape);
  const auto bits = count ? checked_mul(*count, bits_of(tensor.dtype)) : std::nullopt;
  if (!bits)
    throw Error(ErrorKind::malformed, "tensor " + tensor.name + " of shape " +
                                          shape_to_string(tensor.shape) + " is too large")
        .in_tensor(tensor.name);
  return *bits / 8;
}

void count_tensors(const BasePlan& plan, InitBaseReport& report) {
  std::set<DType> dtypes;
  for (const TensorSource& tensor : plan.tensors) {
    const auto total = checked_add(report.weight_bytes, bytes_of(tensor));
    if (!total) throw Error(ErrorKind::malformed, "the weights do not fit in 64 bits of bytes");
    report.weight_bytes = *total;
    report.parameters += static_cast<std::int64_t>(checked_numel(tensor.shape).value_or(0));
    dtypes.insert(tensor.dtype);
  }
  report.tensors = static_cast<std::int64_t>(plan.tensors.size());
  report.dtype = dtypes.size() == 1 ? std::string(to_string(*dtypes.begin())) : "mixed";
}

// The names write_sharded will choose.
std::vector<std::string> planned_weight_files(const InitBaseOptions& options,
                                              std::uint64_t weight_bytes) {
  if (options.container == WeightContainer::pth) return {kTorchName};
  if (options.max_shard_size == 0 || weight_bytes <= options.max_shard_size)
    return {"model.safetensors"};
  return {"model-*-of-*.safetensors", "model.safetensors.index.json"};
}

void plan_files(const BasePlan& plan, const InitBaseOptions& options, InitBaseReport& report) {
  report.files.push_back({"config.json", plan.config_text.size()});
  for (const stdfs::path& path : plan.carried)
    report.files.push_back({path.filename().string(), stdfs::file_size(path)});
  for (const auto& [name, text] : plan.texts) report.files.push_back({name, text.size()});
  for (const std::string& name : planned_weight_files(options, report.weight_bytes))
    report.files.push_back({name, name == "model.safetensors"
                                      ? safetensors_size(plan.tensors, &pytorch_metadata())
                                      : 0});
  report.files.push_back({kBaseLockName, 0});
}

void copy_file(AtomicDirectory& directory, const stdfs::path& from) {
  const auto mapping = MappedFile::open(from);
  auto file = directory.create(from.filename());
  file->write(mapping->bytes());
  file->sync_and_close();
}

void write_torch(AtomicDirectory& directory, const BasePlan& plan, const Sinks& sinks) {
  std::vector<std::pair<std::string, Tensor>> state_dict;
  TensorMap by_name;
  for (const TensorSource& source : plan.tensors) {
    sinks.throw_if_cancelled();
    state_dict.emplace_back(source.name, source.load());
    by_name.emplace(source.name, state_dict.back().second);
  }
  for (const auto& [alias, canonical] : plan.aliases) {
    const auto found = by_name.find(canonical);
    if (found != by_name.end()) state_dict.emplace_back(alias, found->second);
  }
  auto file = directory.create(kTorchName);
  write_torch_file(*file, state_dict);
  file->sync_and_close();
}

std::vector<std::string> write_weights(AtomicDirectory& directory, const BasePlan& plan,
                                       const InitBaseOptions& options, const Sinks& sinks,
                                       std::uint64_t weight_bytes) {
  if (options.container == WeightContainer::pth) {
    write_torch(directory, plan, sinks);
    return {kTorchName};
  }
  std::vector<TensorSource> tensors = plan.tensors;
  std::uint64_t done = 0;
  for (TensorSource& tensor : tensors)
    tensor.load = [&, bytes = bytes_of(tensor), load = std::move(tensor.load)] {
      sinks.throw_if_cancelled();
      sinks.report(done += bytes, weight_bytes, "writing");
      return load();
    };
  return write_sharded(directory, tensors, options.max_shard_size);
}

// Hashes what is on disk, not what was meant to be: a writer's fault would show as a wrong root.
BaseLock lock_written(const AtomicDirectory& directory, const BasePlan& plan,
                      const InitBaseOptions& options, const Sinks& sinks) {
  const Checkpoint written = open_checkpoint(directory.staging_path().string());
  BaseLock lock = compute_base_lock(written, options.threads, sinks);
  for (const auto& [alias, canonical] : plan.aliases)
    if (lock.tensors.contains(canonical) && !lock.tensors.contains(alias))
      lock.aliases.emplace(alias, canonical);
  return lock;
}

void write_base(const BasePlan& plan, const InitBaseOptions& options, const Sinks& sinks,
                InitBaseReport& report) {
  WriteOptions writing;
  writing.force = options.force;
  writing.file_system = options.file_system;
  AtomicDirectory directory(options.output, writing);
  std::vector<std::string> names{"config.json"};
  directory.write("config.json", plan.config_text);
  for (const stdfs::path& path : plan.carried) {
    copy_file(directory, path);
    names.push_back(path.filename().string());
  }
  for (const auto& [name, text] : plan.texts) {
    directory.write(name, text);
    names.push_back(name);
  }
  const auto weights = write_weights(directory, plan, options, sinks, report.weight_bytes);
  names.insert(names.end(), weights.begin(), weights.end());
  const BaseLock lock = lock_written(directory, plan, options, sinks);
  directory.write(kBaseLockName, dump_base_lock(lock));
  names.push_back(kBaseLockName);
  for (const std::string& name : names)
    report.files.push_back({name, stdfs::file_size(directory.staging_path() / name)});
  directory.commit();
  report.root = lock.root;
}

}  // namespace

InitBaseReport init_base(const InitBaseOptions& options, const Sinks& sinks) {
  check_request(options);
  require_absent(options.output, options.force, true);
  const BasePlan plan = !options.from                    ? plan_fresh(options)
                        : looks_like_gguf(*options.from) ? plan_gguf(options)
                                                         : plan_import(options);

  InitBaseReport report;
  report.output = options.output;
  report.model_type = plan.model_type;
  report.notes = plan.notes;
  count_tensors(plan, report);
  require_space(options.output, report.weight_bytes);
  if (options.dry_run)
    plan_files(plan, options, report);
  else
    write_base(plan, options, sinks, report);
  return report;
}

}  // namespace lora
