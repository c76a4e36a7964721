#include <algorithm>
#include <optional>

#include "lora/adapter/manifest.h"
#include "lora/base/error.h"
#include "lora/format/safetensors.h"

namespace lora {
namespace {

constexpr const char* kBase = "base";
constexpr const char* kAdapted = "adapted";
constexpr const char* kCompute = "compute";

std::string describe(const Tensor& tensor) {
  return std::string(to_string(tensor.dtype)) + " " + shape_to_string(tensor.shape);
}

bool is_shaped(const Tensor& tensor, DType dtype, std::size_t dimensions) {
  return tensor.dtype == dtype && tensor.shape.size() == dimensions;
}

std::optional<std::string> input_fault(const TensorMap& inputs) {
  const auto ids = inputs.find("input_ids");
  const auto x = inputs.find("x");
  if ((ids == inputs.end()) == (x == inputs.end()))
    return "found " + std::string(ids == inputs.end() ? "neither" : "both") +
           " of input_ids and x, expected one of them";
  if (ids != inputs.end() && !is_shaped(ids->second, DType::i64, 2))
    return "input_ids is " + describe(ids->second) + ", expected I64 [batch, seq]";
  if (x != inputs.end() && !is_shaped(x->second, DType::f32, 2))
    return "x is " + describe(x->second) + ", expected F32 [batch, features]";
  for (const auto& [name, tensor] : inputs) {
    if (name == "input_ids" || name == "x") continue;
    if (name != "attention_mask" || ids == inputs.end())
      return "found the unknown tensor " + name + ", expected inputs, base and adapted";
    if (tensor.dtype != DType::i64 || tensor.shape != ids->second.shape)
      return "attention_mask is " + describe(tensor) + ", expected I64 " +
             shape_to_string(ids->second.shape);
  }
  return std::nullopt;
}

std::optional<std::string> fault_of(const Probe& probe) {
  if (auto fault = input_fault(probe.inputs)) return fault;
  const std::int64_t batch = probe.inputs.rbegin()->second.shape[0];
  if (probe.base.dtype != DType::f32 || probe.base.shape.empty() || probe.base.shape[0] != batch)
    return "base is " + describe(probe.base) + ", expected F32 [" + std::to_string(batch) +
           ", ...]";
  if (probe.adapted.dtype != DType::f32 || probe.adapted.shape != probe.base.shape)
    return "adapted is " + describe(probe.adapted) + ", expected F32 " +
           shape_to_string(probe.base.shape);
  if (probe.compute != "f32" && probe.compute != "bf16")
    return "metadata compute is \"" + probe.compute + "\", expected f32 or bf16";
  return std::nullopt;
}

}  // namespace

void write_probe(AtomicDirectory& directory, const Probe& probe) {
  if (const auto fault = fault_of(probe))
    throw Error(ErrorKind::internal, "cannot write " + std::string(kProbeName) + ": " + *fault);
  TensorMap tensors = probe.inputs;
  tensors[kBase] = probe.base;
  tensors[kAdapted] = probe.adapted;
  const Metadata metadata{{kCompute, probe.compute}};
  const auto file = directory.create(kProbeName);
  write_safetensors(*file, sources_of(tensors), &metadata);
  file->sync_and_close();
}

Probe read_probe(const std::filesystem::path& path) {
  SafetensorsFile file = read_safetensors(path);
  const auto refuse = [&](const std::string& fault) {
    return Error(ErrorKind::malformed, "cannot read probe " + path.string() + ": " + fault)
        .in_file(path.string());
  };
  const auto take = [&](const char* name) {
    auto node = file.tensors.extract(name);
    if (node.empty()) throw refuse("found no tensor " + std::string(name) + ", expected one");
    return std::move(node.mapped());
  };
  Probe probe;
  probe.base = take(kBase);
  probe.adapted = take(kAdapted);
  probe.inputs = std::move(file.tensors);
  const auto compute = file.metadata.find(kCompute);
  if (compute == file.metadata.end())
    throw refuse("found no metadata entry compute, expected f32 or bf16");
  probe.compute = compute->second;
  if (const auto fault = fault_of(probe)) throw refuse(*fault);
  return probe;
}

}  // namespace lora
