// probe.safetensors: what a base and base + adapter answered to a fixed input when the adapter was
// written, so that verify can ask again.
//
// A record keeps the largest outputs of every position, the normaliser that turns them into
// probabilities, and a digest of all outputs: enough for the largest difference, the
// Kullback-Leibler divergence and the agreement of best tokens, at a few kilobytes whatever the
// vocabulary.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lora/base/atomic_write.h"
#include "lora/base/sha256.h"
#include "lora/base/tensor.h"

namespace lora {

/// Outputs as a matrix: one row a position (a token of a language model, a row of a classifier or
/// an mlp).
struct OutputMatrix {
  std::int64_t rows = 0, width = 0;
  std::vector<float> values;  ///< row-major [rows, width]
};

/// `logits` or `output` of EngineModel::forward; all dimensions but the last are joined to rows.
/// Throws Error(internal) when the model returned neither.
OutputMatrix output_matrix(const TensorMap& outputs);

/// At most this many outputs of a row are recorded.
inline constexpr std::int64_t kRecordedOutputs = 32;

/// What is kept of an OutputMatrix.
struct RecordedOutputs {
  std::int64_t width = 0;
  Tensor values;   ///< F32 [rows, k], k = min(width, kRecordedOutputs), descending in each row
  Tensor indices;  ///< I64 [rows, k]: which outputs these are; equal values by ascending index
  Tensor log_sum;  ///< F64 [rows]: log of the sum of the exponentials of all outputs of the row
  Digest digest;   ///< SHA-256 over all outputs, F32 row-major
};

/// Not-a-number sorts behind everything else.
RecordedOutputs record_outputs(const OutputMatrix& outputs);

/// Log of the sum of the exponentials of one row.
double log_sum_of(const float* row, std::int64_t width);

struct Probe {
  TensorMap inputs;  ///< `input_ids` I64 [batch, seq] (and `attention_mask`), or `x` F32 [batch, n]
  RecordedOutputs base;         ///< of the bare base
  RecordedOutputs adapted;      ///< of base + adapter
  std::string compute = "f32";  ///< "f32" or "bf16": what the engine computed in
};

inline constexpr const char* kProbeName = "probe.safetensors";

/// Writes probe.safetensors. Throws Error(internal) for a probe that read_probe would refuse.
void write_probe(AtomicDirectory& directory, const Probe& probe);

/// Throws Error(not_found | malformed) as read_safetensors does, and Error(malformed) unless the
/// file holds exactly one of `input_ids` and `x`, optionally `attention_mask` (I64, shaped as
/// input_ids), both records with consistent shapes and indices below the width, and the metadata
/// `schema` (lora.probe/2), `compute`, `width` and both digests.
Probe read_probe(const std::filesystem::path& path);

}  // namespace lora
