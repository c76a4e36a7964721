// lora_manifest.json: what was true when an adapter was written, so that verify can prove it later.
//
// PEFT ignores the file. It holds no timestamps and no paths: the same adapter on the same base
// gives the same bytes.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/sha256.h"
#include "lora/format/json.h"

namespace lora {

struct TensorRecord {
  std::string dtype;
  std::vector<std::int64_t> shape;
  Digest digest;  ///< SHA-256 over name, dtype, shape, bytes (docs/formats.md)
  /// Mean of a float tensor: values widened to double and added in row-major order, so that every
  /// machine finds the same number. NaN or infinite where the tensor is; 0 for an empty tensor and
  /// for dtypes that are not float (null in the file).
  double mean = 0;
};

struct Manifest {
  std::optional<Digest> base_root;  ///< root of base.lock.json; absent when no base was given
  std::map<std::string, Digest>
      base_tensors;  ///< digest of each targeted base tensor, by base_name
  /// Of the base's folder when the adapter was saved; absent when it had none. SHA-256 of the bytes
  /// of tokenizer.json, and of the text of the chat template (lora/checkpoint/tokenizer_files.h).
  std::optional<Digest> base_tokenizer;
  std::optional<Digest> base_chat_template;
  std::map<std::string, double> scaling;        ///< by module_path
  std::map<std::string, TensorRecord> tensors;  ///< by peft_key
  JsonArray history;  ///< operations, oldest first: {"operation": "train", ...}
};

/// Digest and mean of one tensor; `peft_key` is part of the digest.
TensorRecord record_tensor(std::string_view peft_key, const Tensor& tensor);

/// Records of every tensor and the scaling of every module, on `threads` threads (0: all). The base
/// and the history are the caller's to fill.
Manifest make_manifest(const Adapter& adapter, int threads);

/// {"schema": "lora.manifest/1", "base": null | {"root", "tensors", "tokenizer"?,
/// "chat_template"?}, "scaling", "tensors", "history"}, members of maps in byte order of their
/// names. A mean that is not finite is one of the strings "nan", "inf", "-inf".
Json to_json(const Manifest& manifest);

/// Throws Error(malformed) naming the member: unknown or missing members, values of another type,
/// digests that are not 64 hexadecimal digits; Error(unsupported) for another schema.
Manifest parse_manifest(const Json& document, const std::string& context);

/// Writes lora_manifest.json (indent 2, a final newline).
void write_manifest(AtomicDirectory& directory, const Manifest& manifest);

/// nullopt when the directory has no lora_manifest.json; throws as parse_manifest and
/// read_json_file do.
std::optional<Manifest> read_manifest(const std::filesystem::path& adapter_directory);

inline constexpr const char* kManifestName = "lora_manifest.json";

}  // namespace lora
