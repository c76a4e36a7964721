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
  double alpha = 0;                 ///< from the configuration (lora_alpha, alpha_pattern)
  double scaling = 0;  ///< alpha/rank or alpha/sqrt(rank), with the rank of the tensors
};

/// How a file's keys are accounted for; everything that is not clean is listed, nothing dropped.
struct KeyProblem {
  enum class Kind {
    unpaired,       ///< A without B, B without A, a bias or magnitude without both
    rank_mismatch,  ///< rows of A, columns of B and the configured rank do not agree
    bad_shape,      ///< not 2-D, zero-sized, of a dtype without arithmetic, or not fitting B
    duplicate,      ///< two names in the file for one tensor
    unknown,        ///< nothing in the configuration explains it; PEFT would overwrite the base
  };
  Kind kind;
  std::string key;      ///< as in the file
  std::string message;  ///< one line, names the module, what was found and what was expected
};

struct Adapter {
  std::filesystem::path path;          ///< directory, or the weights file when given alone
  std::filesystem::path weights_path;  ///< the file the tensors came from
  bool is_pickle = false;
  AdapterConfig config;
  TensorMap tensors;  ///< by clean peft_key; also those that are part of a problem
  /// Sorted by module_path. A pair whose factors cannot be multiplied is only in `problems`.
  std::vector<LoraModule> modules;
  /// Full base parameters the adapter brings along (modules_to_save, biases, saved embeddings), by
  /// base_name. Unexplained base parameters are not here.
  TensorMap replacements;
  std::vector<std::string> unclean_keys;  ///< as in the file, where not a clean peft_key
  std::vector<KeyProblem> problems;       ///< sorted by key

  const LoraModule* find(std::string_view module_path) const;
};

inline constexpr const char* kAdapterConfigName = "adapter_config.json";
inline constexpr const char* kAdapterWeightsName = "adapter_model.safetensors";
inline constexpr const char* kAdapterPickleName = "adapter_model.bin";

/// Interprets tensors named by any scheme parse_key understands. Two names for one clean key are a
/// problem and the clean one (else the first in byte order) is kept; the redundant
/// `<module>.modules_to_save.bias` that PEFT writes with bias="all" is none while its bytes are
/// equal. Throws Error(usage) only for a pattern of the configuration that does not compile.
Adapter make_adapter(AdapterConfig config, TensorMap tensors, std::filesystem::path path);

/// Opens an adapter directory, a weights file (with `config` given), or throws:
/// Error(not_found) when there is none (the message says what is there instead: a base checkpoint,
/// a run directory, weights without configuration, ...), Error(malformed) when a file is damaged,
/// empty or holds no tensor. Key problems do not throw; they are in `problems`.
///
/// A directory's adapter_model.safetensors wins over adapter_model.bin, as in PEFT. A given
/// `config` replaces the directory's own.
Adapter open_adapter(const std::filesystem::path& path,
                     const std::optional<AdapterConfig>& config = std::nullopt);

/// True when `path` is a directory with adapter_config.json.
bool is_adapter_directory(const std::filesystem::path& path);

/// Writes adapter_model.safetensors (metadata {"format": "pt"}) and adapter_config.json as PEFT's
/// save_pretrained does. `tensors` are named by clean peft_key. The caller commits the directory.
void write_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                   const TensorMap& tensors);

}  // namespace lora
