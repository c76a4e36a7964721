#include "lora/adapter/probe.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "lora/format/safetensors.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;
using testing::TempDir;

Tensor ids(std::int64_t batch, std::int64_t columns) {
  return Tensor::from_i64({batch, columns},
                          std::vector<std::int64_t>(static_cast<std::size_t>(batch * columns), 1));
}

OutputMatrix matrix(std::int64_t rows, std::int64_t width, float first = 0) {
  OutputMatrix result{rows, width, {}};
  for (std::int64_t i = 0; i < rows * width; ++i)
    result.values.push_back(first + static_cast<float>(i % 7) - static_cast<float>(i % 3));
  return result;
}

Probe token_probe() {
  return {{{"input_ids", ids(2, 3)}, {"attention_mask", ids(2, 3)}},
          record_outputs(matrix(6, 50)),
          record_outputs(matrix(6, 50, 1)),
          "bf16"};
}

std::int64_t index_at(const Tensor& tensor, std::int64_t i) {
  std::int64_t value = 0;
  std::memcpy(&value, tensor.bytes.data() + i * 8, 8);
  return value;
}

TEST_CASE("a record keeps the largest outputs of each row in order, ties by index") {
  const RecordedOutputs record = record_outputs({2, 4, {1, 3, 3, -2, 0, 0, 5, 0}});
  CHECK(record.width == 4);
  CHECK(record.values.to_f32() == std::vector<float>{3, 3, 1, -2, 5, 0, 0, 0});
  CHECK(index_at(record.indices, 0) == 1);
  CHECK(index_at(record.indices, 1) == 2);
  CHECK(index_at(record.indices, 4) == 2);
  const std::vector<double> sums = record.log_sum.to_f64();
  CHECK(sums[0] == Approx(std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(-2.0))));
  CHECK(record_outputs(matrix(3, 50)).values.shape ==
        std::vector<std::int64_t>{3, kRecordedOutputs});
}

TEST_CASE("values that are not numbers come last in a record") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const RecordedOutputs record = record_outputs({1, 3, {nan, 1, 2}});
  CHECK(index_at(record.indices, 0) == 2);
  CHECK(index_at(record.indices, 2) == 0);
}

TEST_CASE("outputs of any number of dimensions become rows") {
  const Tensor logits = Tensor::from_f32({2, 3, 2}, std::vector<float>(12, 1));
  CHECK(output_matrix({{"logits", logits}}).rows == 6);
  const Tensor plain = Tensor::from_f32({4, 2}, std::vector<float>(8, 1));
  CHECK(output_matrix({{"output", plain}}).width == 2);
  require_error(ErrorKind::internal, "neither logits nor output", [] { output_matrix({}); });
}

TEST_CASE("a probe survives its file") {
  const TempDir folder;
  AtomicDirectory out(folder / "a", {});
  write_probe(out, token_probe());
  out.commit();
  const Probe probe = read_probe(folder / "a" / kProbeName);
  CHECK(probe.compute == "bf16");
  CHECK(probe.inputs.size() == 2);
  CHECK(probe.base.width == 50);
  CHECK(probe.base.digest == token_probe().base.digest);
  CHECK(probe.adapted.digest == token_probe().adapted.digest);
  CHECK(probe.adapted.values.to_f32() == token_probe().adapted.values.to_f32());
  CHECK(probe.adapted.log_sum.to_f64() == token_probe().adapted.log_sum.to_f64());
}

TEST_CASE("a probe that is not complete is refused when read and never written") {
  struct Edit {
    const char* part;
    void (*apply)(Probe&);
  };
  const Edit edits[] = {
      {"neither of input_ids and x", [](Probe& p) { p.inputs.clear(); }},
      {"both of input_ids and x",
       [](Probe& p) {
         p.inputs["x"] = Tensor::from_f32({1, 1}, std::vector<float>{1});
       }},
      {"input_ids is F32",
       [](Probe& p) {
         p.inputs["input_ids"] = Tensor::from_f32({1, 1}, std::vector<float>{1});
       }},
      {"attention_mask is I64 [2, 4]", [](Probe& p) { p.inputs["attention_mask"] = ids(2, 4); }},
      {"unknown tensor extra",
       [](Probe& p) { p.inputs["extra"] = Tensor::from_f32({1}, std::vector<float>{1}); }},
      {"adapted.values is F32 [5, 32]",
       [](Probe& p) { p.adapted = record_outputs(matrix(5, 50)); }},
      {"base.values is F32 [6, 9]",
       [](Probe& p) {
         p.base = record_outputs(matrix(6, 9));
         p.base.width = 50;
       }},
      {"base.log_sum is F64 [5]",
       [](Probe& p) { p.base.log_sum = record_outputs(matrix(5, 50)).log_sum; }},
      {"base.indices holds 7, expected at least 0 and below 2",
       [](Probe& p) {
         p.base = record_outputs(matrix(6, 2));
         p.base.indices = Tensor::from_i64({6, 2}, std::vector<std::int64_t>(12, 7));
         p.adapted = record_outputs(matrix(6, 2));
       }},
      {"compute is \"f16\"", [](Probe& p) { p.compute = "f16"; }},
  };
  const TempDir folder;
  for (const Edit& edit : edits) {
    INFO(edit.part);
    Probe probe = token_probe();
    edit.apply(probe);
    AtomicDirectory out(folder / "a", {});
    require_error(ErrorKind::internal, edit.part, [&] { write_probe(out, probe); });

    TensorMap tensors = probe.inputs;
    for (const auto& [side, record] :
         {std::pair("base", &probe.base), std::pair("adapted", &probe.adapted)}) {
      tensors[std::string(side) + ".values"] = record->values;
      tensors[std::string(side) + ".indices"] = record->indices;
      tensors[std::string(side) + ".log_sum"] = record->log_sum;
    }
    const Metadata metadata{{"schema", "lora.probe/2"},
                            {"compute", probe.compute},
                            {"width", std::to_string(probe.base.width)},
                            {"base_sha256", probe.base.digest.hex()},
                            {"adapted_sha256", probe.adapted.digest.hex()}};
    write_safetensors(folder / "p.safetensors", tensors, &metadata, {.force = true});
    require_error(ErrorKind::malformed, edit.part, [&] { read_probe(folder / "p.safetensors"); });
  }
}

TEST_CASE("a probe file lacking a tensor or a metadata entry is refused") {
  const TempDir folder;
  AtomicDirectory out(folder / "a", {});
  write_probe(out, token_probe());
  out.commit();
  const SafetensorsFile whole = read_safetensors(folder / "a" / kProbeName);
  const auto path = folder / "p.safetensors";
  for (const char* name : {"base.values", "adapted.indices", "base.log_sum"}) {
    TensorMap tensors = whole.tensors;
    tensors.erase(name);
    write_safetensors(path, tensors, &whole.metadata, {.force = true});
    require_error(ErrorKind::malformed, std::string("no tensor ") + name,
                  [&] { read_probe(path); });
  }
  for (const char* key : {"schema", "compute", "width", "base_sha256"}) {
    Metadata metadata = whole.metadata;
    metadata.erase(key);
    write_safetensors(path, whole.tensors, &metadata, {.force = true});
    require_error(ErrorKind::malformed, std::string("no metadata entry ") + key,
                  [&] { read_probe(path); });
    metadata[key] = "none";
    write_safetensors(path, whole.tensors, &metadata, {.force = true});
    require_error(ErrorKind::malformed, key, [&] { read_probe(path); });
  }
}

}  // namespace
}  // namespace lora
