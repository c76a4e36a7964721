// init-base: writes a base checkpoint directory, fresh or imported.
//
// The directory holds config.json, the weights, the tokenizer files of the source and, written
// last, base.lock.json (lora/checkpoint/base_lock.h), computed from the files as they were written.
// It appears complete or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/dtype.h"
#include "lora/base/file_system.h"
#include "lora/base/sha256.h"
#include "lora/base/sinks.h"

namespace lora {

/// Container of the weights: safetensors (sharded past max_shard_size), or one `base_model.pth`
/// that torch.load(weights_only=True) reads. A .pth is assembled in memory.
enum class WeightContainer { safetensors, pth };

/// Exactly one of preset, arch and from is set.
///
/// Fresh weights depend on seed, tensor name and shape alone, whatever machine and thread count:
/// normal with the configuration's initializer_range for matrices, ones for norms, zeros for
/// biases, uniform within +-1/sqrt(in) for an mlp; drawn in f32, then rounded to the dtype.
struct InitBaseOptions {
  std::optional<std::string> preset;          ///< one of init_base_presets()
  std::optional<std::filesystem::path> arch;  ///< config.json of a family
  std::optional<std::string> from;            ///< any Base source (lora/checkpoint/checkpoint.h)
  std::filesystem::path output;
  std::uint64_t seed = 0;
  /// Fresh weights: default the configuration's dtype, else F32. Imports: default no conversion;
  /// otherwise float tensors are rounded to nearest even, others kept.
  std::optional<DType> dtype;
  WeightContainer container = WeightContainer::safetensors;
  std::uint64_t max_shard_size = 50'000'000'000;  ///< bytes of data a shard; 0: never shard
  std::vector<std::int64_t> hidden_sizes;         ///< preset mlp: in, ..., out; empty: 10, 20, 2
  std::optional<std::string> activation;          ///< mlp, fresh or imported
  std::optional<std::string> final_activation;
  bool force = false;                           ///< replace an existing output
  bool dry_run = false;                         ///< check and plan, write nothing
  int threads = 0;                              ///< 0: all
  std::vector<std::filesystem::path> hf_cache;  ///< caches searched for a `from` that is an id
  FileSystem* file_system = nullptr;            ///< null: the real one
};

struct WrittenFile {
  std::string name;
  std::uint64_t bytes = 0;  ///< 0 in a dry run where the size is only known once written
};

struct InitBaseReport {
  std::filesystem::path output;
  std::string model_type;
  std::vector<WrittenFile> files;  ///< in the order written, base.lock.json last
  std::int64_t tensors = 0;
  std::int64_t parameters = 0;  ///< elements of all tensors, shared ones once
  std::uint64_t weight_bytes = 0;
  std::string dtype;               ///< "F32", or "mixed"
  std::optional<Digest> root;      ///< absent in a dry run
  std::vector<std::string> notes;  ///< what must be said aloud
};

/// "mlp", "tiny-llama", "tiny-gpt2", "tiny-bert".
const std::vector<std::string_view>& init_base_presets();

/// Imports keep the bytes of config.json (but for the dtype field when `dtype` converts) and carry
/// the tokenizer files along. Names that share a storage are written once in safetensors, as
/// transformers does, and recorded as aliases in base.lock.json, from which reading restores them;
/// a .pth holds them all. Throws Error(usage) for contradicting options, Error(output) when the
/// output exists or cannot be written, Error(unsupported) for quantised weights and for sources
/// whose architecture is unknown, and whatever open_checkpoint throws.
InitBaseReport init_base(const InitBaseOptions& options, const Sinks& sinks = {});

}  // namespace lora
