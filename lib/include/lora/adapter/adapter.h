// A LoRA adapter: configuration plus tensors, and what the tensors mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/adapter/keys.h"
#include "lora/base/atomic_write.h"
#include "lora/base/module.h"
#include "lora/base/tensor.h"

namespace lora {

/// One adapted module. `a` is [rank, in], `b` is [out, rank] (linear and conv1d); for embeddings
/// `a` is [rank, rows] and `b` is [width, rank]. The applied update of a linear weight [out, in] is
/// scaling * b . a.
struct LoraModule {
  std::string module_path;
  LayerKind kind = LayerKind::linear;  ///< linear or embedding, as far as the keys can tell
  Tensor a;
  Tensor b;
  std::optional<Tensor> bias;       ///< lora_B.bias
  std::optional<Tensor> magnitude;  ///< DoRA
  std::int64_t rank = 0;            ///< from the tensors
  double alpha = 0;
  double scaling = 0;
};

/// How a file's keys are accounted for; everything that is not clean is listed, nothing dropped.
struct KeyProblem {
  enum class Kind { unpaired, rank_mismatch, bad_shape, duplicate, unknown };
  Kind kind;
  std::string key;
  std::string message;
};

struct Adapter {
  std::filesystem::path path;          ///< directory, or the weights file when given alone
  std::filesystem::path weights_path;  ///< the file the tensors came from
  bool is_pickle = false;
  AdapterConfig config;
  TensorMap tensors;  ///< by clean peft_key
  std::vector<LoraModule> modules;  ///< sorted by module_path
  /// Full base parameters the adapter brings along (modules_to_save, biases), by base_name.
  TensorMap replacements;
  std::vector<std::string> unclean_keys;  ///< as in the file, where not a clean peft_key
  std::vector<KeyProblem> problems;

  const LoraModule* find(std::string_view module_path) const;
};

/// Interprets tensors named by any scheme parse_key understands.
Adapter make_adapter(AdapterConfig config, TensorMap tensors, std::filesystem::path path);

/// Opens an adapter directory, a weights file (with `config` given), or throws:
/// Error(not_found) when there is none, Error(malformed) when a file is damaged. Key problems do not
/// throw; they are in `problems`.
Adapter open_adapter(const std::filesystem::path& path,
                     const std::optional<AdapterConfig>& config = std::nullopt);

/// True when `path` is a directory with adapter_config.json.
bool is_adapter_directory(const std::filesystem::path& path);

/// Writes adapter_model.safetensors and adapter_config.json as PEFT's save_pretrained does.
void write_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                   const TensorMap& tensors);

}  // namespace lora
