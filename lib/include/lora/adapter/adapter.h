// A LoRA adapter: configuration plus tensors, and what the tensors mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/adapter/keys.h"
#include "lora/base/atomic_write.h"
#include "lora/base/mapped_file.h"
#include "lora/base/module.h"
#include "lora/base/tensor.h"

namespace lora {

/// One site that got LoRA factors, with everything its update depends on. `update_factors`
/// (lora/adapter/update.h) turns any kind into plain products of matrices.
///
/// Shapes of `a` and `b` by kind: linear, conv1d, attention [rank, in] and [out, rank]; embedding
/// [rank, rows] and [width, rank]; convolution [rank, in, kernel...] and [out, rank/groups, 1...];
/// parameter [rank * experts, in] and [out, rank * experts].
struct LoraModule {
  /// Path of the site. Sites inside another LoRA layer keep the `base_layer` components that tell
  /// them apart (attention output projections, several expert parameters of one module).
  std::string module_path;
  LayerKind kind = LayerKind::linear;  ///< as far as keys, shapes and configuration can tell
  Tensor a;
  Tensor b;
  std::optional<Tensor> bias;  ///< lora_B.bias [out] (lora_bias)
  std::optional<Tensor>
      magnitude;                   ///< DoRA: [out], embeddings [width], convolutions [1, out, 1...]
  std::optional<Tensor> diagonal;  ///< KaSA: lora_diag [rank], between B and A
  std::int64_t rank = 0;           ///< of one product, from the tensors
  double alpha = 0;                ///< from the configuration (lora_alpha, alpha_pattern)
  double scaling = 0;              ///< alpha/rank or alpha/sqrt(rank), with the rank of the tensors
  /// Name of the base parameter that the update is added to ("h.0.c_attn.weight",
  /// "attn.in_proj_weight", "mlp.experts.gate_up_proj").
  std::string base_name;
  /// How many times the update is added. PEFT adds that of nn.MultiheadAttention's out_proj twice
  /// and trains it that way (docs/formats.md says by which versions); 1 everywhere else.
  double times = 1;
  std::int64_t experts = 1;                 ///< parameter: products stacked in a and b
  bool is_in_out = false;                   ///< parameter: stored [E, in, out] (transposed layout)
  std::int64_t groups = 1;                  ///< convolution
  std::int64_t blocks_a = 1, blocks_b = 1;  ///< BD-LoRA: blocks on the diagonal of a or b
  std::int64_t pool = 1;                    ///< QALoRA: input columns for each column of a
  /// Parameter: whether `is_in_out` is proven. PEFT before 0.19 read every stack as [E, in, out];
  /// later ones read [E, out, in] unless the base's class says otherwise, which only the shapes of
  /// the base can prove (settle_parameters), and not even they where in equals out.
  bool is_layout_certain = true;
  /// Parameter: whether `base_name` is proven. Keys do not name the parameter; several parameters
  /// of one module nest in the order in which its class registers them.
  bool is_name_certain = true;
  /// Path of the embedding whose transposed factors these are (ensure_weight_tying): where head and
  /// embedding are one matrix, the update counts once. Empty everywhere else.
  std::string tied_to;
};

/// Replacement rows of an embedding (trainable_token_indices): row i is the new value of row
/// indices[i] of the base's embedding, not a difference.
struct TokenRows {
  std::string module_path;            ///< of the embedding
  std::vector<std::int64_t> indices;  ///< from the configuration, in its order
  Tensor rows;                        ///< [n, width]
};

/// How a file's keys are accounted for; everything that is not clean is listed, nothing dropped.
struct KeyProblem {
  enum class Kind {
    unpaired,  ///< A without B, B without A, another tensor without both, KaSA without diagonal
    rank_mismatch,  ///< rows of A, columns of B and the configured rank do not agree
    bad_shape,      ///< no shape of its role, zero-sized, without arithmetic, or not fitting B
    duplicate,      ///< two names in the file for one tensor, with different values
    copy,           ///< a second name in the file for the same bytes
    other_adapter,  ///< the first tensor of another adapter in the same file
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
  /// Name of this adapter inside the keys of the file; "default" where they carry none.
  std::string name = "default";
  /// Further adapters of the same file by name, tensors named as in the file. PEFT writes one
  /// adapter a file and loads the one called "default".
  std::map<std::string, TensorMap> others;
  std::size_t file_keys = 0;  ///< names in the file, second names and other adapters included
  /// Sorted by module_path. A pair whose factors cannot be multiplied is only in `problems`.
  std::vector<LoraModule> modules;
  /// Full base parameters the adapter brings along (modules_to_save, biases, saved embeddings), by
  /// base_name. Unexplained base parameters are not here.
  TensorMap replacements;
  std::vector<TokenRows> tokens;          ///< sorted by module_path
  std::vector<std::string> unclean_keys;  ///< as in the file, where not a clean peft_key
  /// The mapped weights file (safetensors), so that streaming passes can drop pages behind them.
  std::vector<std::shared_ptr<const MappedFile>> mappings;
  std::vector<KeyProblem> problems;  ///< sorted by key

  const LoraModule* find(std::string_view module_path) const;
  /// The folder whose manifest, probe and tokenizer belong to this adapter.
  std::filesystem::path directory() const;
};

inline constexpr const char* kAdapterConfigName = "adapter_config.json";
inline constexpr const char* kAdapterWeightsName = "adapter_model.safetensors";
inline constexpr const char* kAdapterPickleName = "adapter_model.bin";

/// Interprets tensors named by any scheme parse_key understands. Two names for one clean key are a
/// problem and the clean one (else the first in byte order) is kept; the redundant
/// `<module>.modules_to_save.bias` that PEFT writes with bias="all" is none while its bytes are
/// equal. Of several adapters in the file `name` is taken when it is one of them, and the rest is
/// none of its business; without a name "default", else the first, and every other one is a
/// problem. Throws Error(usage) only for a pattern of the configuration that does not compile.
Adapter make_adapter(AdapterConfig config, TensorMap tensors, std::filesystem::path path,
                     const std::optional<std::string>& name = std::nullopt);

/// Settles with the base's modules what an adapter alone leaves open about its sites on bare
/// parameters: base_name, is_in_out and whether both are certain. `modules` list parameters as
/// LayerKind::parameter under their full names; weights of other modules count too. A site that no
/// parameter of the base fits stays as it was. `model_type` decides the layout of square experts
/// for the families whose class is known to store [E, in, out].
void settle_parameters(Adapter& adapter, const ModuleList& modules,
                       const std::string& model_type = {});

/// Opens an adapter directory, a weights file (with `config` given), or throws:
/// Error(not_found) when there is none (the message says what is there instead: a base checkpoint,
/// a run directory, weights without configuration, ...), Error(malformed) when a file is damaged,
/// empty or holds no tensor. Key problems do not throw; they are in `problems`.
///
/// A directory's adapter_model.safetensors wins over adapter_model.bin, as in PEFT. A given
/// `config` replaces the directory's own; `name` as in make_adapter.
Adapter open_adapter(const std::filesystem::path& path,
                     const std::optional<AdapterConfig>& config = std::nullopt,
                     const std::optional<std::string>& name = std::nullopt);

/// True when `path` is a directory with adapter_config.json.
bool is_adapter_directory(const std::filesystem::path& path);

/// Writes adapter_model.safetensors (metadata {"format": "pt"}) and adapter_config.json as PEFT's
/// save_pretrained does. `tensors` are named by clean peft_key. The caller commits the directory.
void write_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                   const TensorMap& tensors);

}  // namespace lora
