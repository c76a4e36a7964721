// lora_manifest.json: what was true when an adapter was written, so that verify can prove it later.
//
// PEFT ignores the file. It holds no timestamps and no paths: the same adapter on the same base
// gives the same bytes.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/sha256.h"
#include "lora/format/json.h"

namespace lora {

struct TensorRecord {
  std::string dtype;
  std::vector<std::int64_t> shape;
  Digest digest;    ///< SHA-256 over name, dtype, shape, bytes (docs/formats.md)
  double mean = 0;  ///< float tensors; NaN-free adapters only
};

struct Manifest {
  std::optional<Digest> base_root;      ///< root of base.lock.json; absent when no base was given
  std::map<std::string, Digest> base_tensors;  ///< digest of each targeted base tensor, by base_name
  std::map<std::string, double> scaling;       ///< by module_path
  std::map<std::string, TensorRecord> tensors; ///< by peft_key
  JsonArray history;  ///< operations, oldest first: {"operation": "train", ...}
};

/// Digest and mean of every tensor and the scaling of every module.
Manifest make_manifest(const Adapter& adapter, int threads);

Json to_json(const Manifest& manifest);
Manifest parse_manifest(const Json& document, const std::string& context);
/// nullopt when the directory has no lora_manifest.json.
std::optional<Manifest> read_manifest(const std::filesystem::path& adapter_directory);

inline constexpr const char* kManifestName = "lora_manifest.json";
inline constexpr const char* kProbeName = "probe.safetensors";

/// Recorded outputs: `input_ids` (I64 [batch, seq]) or `x` (F32 [batch, features]), and `base` and
/// `adapted` (F32): the outputs of the bare base and of base + adapter, for token models the logits
/// of each row's last position. Metadata says the compute dtype.
struct Probe {
  TensorMap inputs;
  Tensor base;
  Tensor adapted;
  std::string compute = "f32";
};
void write_probe(AtomicDirectory& directory, const Probe& probe);
Probe read_probe(const std::filesystem::path& path);

}  // namespace lora
