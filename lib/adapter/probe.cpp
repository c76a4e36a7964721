#include "lora/adapter/probe.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

#include "lora/base/error.h"
#include "lora/format/safetensors.h"

namespace lora {
namespace {

constexpr const char* kSchema = "lora.probe/2";

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

std::optional<std::string> side_fault(const std::string& side, const RecordedOutputs& record) {
  if (record.width < 1) return "metadata width is not positive";
  const std::int64_t kept = std::min(record.width, kRecordedOutputs);
  if (!is_shaped(record.values, DType::f32, 2) || record.values.shape[1] != kept)
    return side + ".values is " + describe(record.values) + ", expected F32 [positions, " +
           std::to_string(kept) + "]";
  const std::int64_t rows = record.values.shape[0];
  if (record.indices.dtype != DType::i64 || record.indices.shape != record.values.shape)
    return side + ".indices is " + describe(record.indices) + ", expected I64 " +
           shape_to_string(record.values.shape);
  if (!is_shaped(record.log_sum, DType::f64, 1) || record.log_sum.shape[0] != rows)
    return side + ".log_sum is " + describe(record.log_sum) + ", expected F64 [" +
           std::to_string(rows) + "]";
  for (std::int64_t i = 0; i < record.indices.numel(); ++i) {
    std::int64_t index = 0;
    std::memcpy(&index, record.indices.bytes.data() + i * 8, 8);
    if (index < 0 || index >= record.width)
      return side + ".indices holds " + std::to_string(index) + ", expected at least 0 and below " +
             std::to_string(record.width);
  }
  return std::nullopt;
}

std::optional<std::string> fault_of(const Probe& probe) {
  if (auto fault = input_fault(probe.inputs)) return fault;
  if (auto fault = side_fault("base", probe.base)) return fault;
  if (auto fault = side_fault("adapted", probe.adapted)) return fault;
  if (probe.base.values.shape != probe.adapted.values.shape)
    return "adapted.values is " + describe(probe.adapted.values) + ", expected F32 " +
           shape_to_string(probe.base.values.shape);
  if (probe.compute != "f32" && probe.compute != "bf16")
    return "metadata compute is \"" + probe.compute + "\", expected f32 or bf16";
  return std::nullopt;
}

void add_side(const std::string& side, const RecordedOutputs& record, TensorMap& tensors,
              Metadata& metadata) {
  tensors[side + ".values"] = record.values;
  tensors[side + ".indices"] = record.indices;
  tensors[side + ".log_sum"] = record.log_sum;
  metadata[side + "_sha256"] = record.digest.hex();
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path), file_(read_safetensors(path)) {}

  Probe read() {
    if (const std::string schema = entry("schema", kSchema); schema != kSchema)
      throw refuse("metadata schema is \"" + schema + "\", expected " + kSchema);
    Probe probe;
    probe.compute = entry("compute", "f32 or bf16");
    const std::string text = entry("width", "the number of outputs");
    std::int64_t width = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), width);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size())
      throw refuse("metadata width is \"" + text + "\", expected an integer");
    probe.base = side("base", width);
    probe.adapted = side("adapted", width);
    probe.inputs = std::move(file_.tensors);
    if (const auto fault = fault_of(probe)) throw refuse(*fault);
    return probe;
  }

 private:
  Error refuse(const std::string& fault) const {
    return Error(ErrorKind::malformed, "cannot read probe " + path_.string() + ": " + fault)
        .in_file(path_.string())
        .with_hint("record outputs again: lora save ADAPTER --base BASE -o DIR");
  }
  std::string entry(const std::string& key, const std::string& expected) const {
    const auto found = file_.metadata.find(key);
    if (found == file_.metadata.end())
      throw refuse("found no metadata entry " + key + ", expected " + expected);
    return found->second;
  }
  Tensor take(const std::string& name) {
    auto node = file_.tensors.extract(name);
    if (node.empty()) throw refuse("found no tensor " + name + ", expected one");
    return std::move(node.mapped());
  }
  RecordedOutputs side(const std::string& name, std::int64_t width) {
    RecordedOutputs record;
    record.width = width;
    record.values = take(name + ".values");
    record.indices = take(name + ".indices");
    record.log_sum = take(name + ".log_sum");
    const auto digest = Digest::from_hex(entry(name + "_sha256", "a SHA-256"));
    if (!digest) throw refuse("metadata " + name + "_sha256 is no SHA-256");
    record.digest = *digest;
    return record;
  }

  const std::filesystem::path& path_;
  SafetensorsFile file_;
};

}  // namespace

OutputMatrix output_matrix(const TensorMap& outputs) {
  for (const char* name : {"logits", "output"}) {
    const auto found = outputs.find(name);
    if (found == outputs.end() || found->second.shape.empty()) continue;
    OutputMatrix matrix;
    matrix.width = found->second.shape.back();
    matrix.values = found->second.to_f32();
    if (matrix.width > 0) matrix.rows = found->second.numel() / matrix.width;
    return matrix;
  }
  throw Error(ErrorKind::internal, "the model returned neither logits nor output");
}

double log_sum_of(const float* row, std::int64_t width) {
  const double largest = *std::max_element(row, row + width);
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += std::exp(static_cast<double>(row[i]) - largest);
  return largest + std::log(sum);
}

RecordedOutputs record_outputs(const OutputMatrix& outputs) {
  RecordedOutputs record;
  record.width = outputs.width;
  record.digest = sha256(std::as_bytes(std::span(outputs.values)));
  const std::int64_t kept = std::min(outputs.width, kRecordedOutputs);
  std::vector<float> values;
  std::vector<std::int64_t> indices;
  std::vector<std::byte> log_sums(static_cast<std::size_t>(outputs.rows) * sizeof(double));
  std::vector<std::int64_t> order(static_cast<std::size_t>(outputs.width));
  for (std::int64_t i = 0; i < outputs.rows; ++i) {
    const float* row = outputs.values.data() + i * outputs.width;
    const auto height = [&](std::int64_t index) {
      return std::isnan(row[index]) ? -HUGE_VALF : row[index];
    };
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + kept, order.end(),
                      [&](std::int64_t x, std::int64_t y) {
                        return height(x) != height(y) ? height(x) > height(y) : x < y;
                      });
    for (std::int64_t k = 0; k < kept; ++k) {
      indices.push_back(order[static_cast<std::size_t>(k)]);
      values.push_back(row[indices.back()]);
    }
    const double log_sum = log_sum_of(row, outputs.width);
    std::memcpy(log_sums.data() + i * 8, &log_sum, sizeof(log_sum));
  }
  record.values = Tensor::from_f32({outputs.rows, kept}, values);
  record.indices = Tensor::from_i64({outputs.rows, kept}, indices);
  record.log_sum = Tensor::from_bytes(DType::f64, {outputs.rows}, std::move(log_sums));
  return record;
}

void write_probe(AtomicDirectory& directory, const Probe& probe) {
  if (const auto fault = fault_of(probe))
    throw Error(ErrorKind::internal, "cannot write " + std::string(kProbeName) + ": " + *fault);
  TensorMap tensors = probe.inputs;
  Metadata metadata{
      {"schema", kSchema}, {"compute", probe.compute}, {"width", std::to_string(probe.base.width)}};
  add_side("base", probe.base, tensors, metadata);
  add_side("adapted", probe.adapted, tensors, metadata);
  const auto file = directory.create(kProbeName);
  write_safetensors(*file, sources_of(tensors), &metadata);
  file->sync_and_close();
}

Probe read_probe(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace lora
