// The border to LibTorch: one abstract class, no torch type in sight.
//
// The engine is a shared object that load_engine() opens on first need. Tensors cross the border as
// lora::Tensor (dtype, shape, bytes). Every failure inside arrives as lora::Error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/sinks.h"
#include "lora/base/tensor.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/format/json.h"

namespace lora {

struct Adapter;
struct AdapterConfig;
struct Checkpoint;
struct Probe;

/// What the engine computes in. `base`: the dtype of the base's weights.
enum class Compute { base, f32, bf16 };

/// How the matrices of a transformer's layers are kept while they are frozen. `native`: in the
/// dtype of Compute. int8 and nf4 are blockwise (docs/design.md): 8.25 and 4.5 bits a value,
/// products in f32. Embeddings, output heads, norms, biases and what an adapter saves whole stay
/// native.
enum class BaseDtype { native, int8, nf4 };
constexpr std::string_view to_string(BaseDtype dtype) {
  return dtype == BaseDtype::nf4 ? "nf4" : dtype == BaseDtype::int8 ? "int8" : "native";
}

struct EngineInfo {
  std::string libtorch_version;  ///< "2.13.0"
  std::string cpu_capability;    ///< what LibTorch dispatches to: "AVX512", "AVX2", ...
};

struct ModelOptions {
  const Checkpoint* base = nullptr;      ///< required; must outlive the model
  std::vector<const Adapter*> adapters;  ///< all active at once, their updates add up
  Compute compute = Compute::base;
  BaseDtype base_dtype = BaseDtype::native;
  std::string device = "cpu";
  bool trainable = false;  ///< adapters' parameters require gradients; the base never does
  /// The factors that the adapter's initialisation (PiSSA, OLoRA) took out of the base, by
  /// peft_key; null: they are worked out again.
  const TensorMap* first_factors = nullptr;
  /// Owner of `base` where the engine made it itself (a vocabulary that an adapter extends).
  std::shared_ptr<const Checkpoint> owned_base;
};

struct ParameterInfo {
  std::string name;  ///< base_name for frozen parameters, peft_key for adapters'
  std::vector<std::int64_t> shape;
  DType dtype = DType::f32;
  bool is_trainable = false;
};

struct GenerateOptions {
  std::int64_t max_new_tokens = 128;
  double temperature = 0;  ///< 0: greedy
  std::uint64_t seed = 0;
  std::vector<std::int64_t> stop_tokens;
  /// Called with each new token; return false to stop.
  std::function<bool(std::int64_t)> on_token;
  const CancelFlag* cancel = nullptr;
};

/// A base with its adapters, ready to compute.
class EngineModel {
 public:
  virtual ~EngineModel() = default;
  virtual std::vector<ParameterInfo> parameters() const = 0;

  /// Token models: `input_ids` I64 [batch, seq] and optionally `attention_mask` [batch, seq] give
  /// `logits` F32 [batch, seq, vocabulary]. An mlp: `x` F32 [batch, features] gives `output`.
  /// Throws Error(incompatible) for wrong names, shapes or token ids.
  virtual TensorMap forward(const TensorMap& inputs) = 0;

  /// Switches all adapters off or on (on at first); off gives the bare base's outputs.
  virtual void enable_adapters(bool enabled) = 0;

  /// New tokens after `prompt` (token models only), with a key-value cache.
  virtual std::vector<std::int64_t> generate(const std::vector<std::int64_t>& prompt,
                                             const GenerateOptions& options) = 0;
};

/// Everything `lora train` can be told; defaults are the command line's.
struct TrainOptions {
  std::string base_source;  ///< as given; recorded in run.json
  const Checkpoint* base = nullptr;
  /// The base's digests where they are being computed already; else the run computes them.
  std::shared_future<BaseLock> base_lock;
  std::vector<std::filesystem::path> data;
  std::filesystem::path run_dir;
  const AdapterConfig* adapter_config = nullptr;  ///< targets unresolved
  const Adapter* initial_adapter = nullptr;       ///< --adapter: continue this one
  /// default: A uniform within 1/sqrt(in), B zero (PEFT's true) | gaussian: A normal with deviation
  /// 1/rank, B zero | zero: A zero, B uniform within 1/sqrt(rank) | others: as PEFT has them.
  std::string init = "default";
  /// New tokens, each the text of one: they follow the tokenizer's own, their rows are trained.
  std::vector<std::string> add_tokens;

  std::optional<std::int64_t> steps;
  std::optional<double> epochs;  ///< neither: 3 epochs
  std::int64_t batch_size = 4;
  std::int64_t grad_accum = 1;
  std::int64_t seq_len = 512;
  double lr = 2e-4;
  std::string schedule = "cosine";  ///< cosine | linear | constant
  double warmup = 0.03;             ///< below 1: share of all steps; otherwise a number of steps
  double weight_decay = 0;
  double max_grad_norm = 1;  ///< 0: off
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  Compute compute = Compute::base;
  BaseDtype base_dtype = BaseDtype::native;  ///< while training; the result is for the native base
  std::uint64_t seed = 0;
  bool shuffle = true;
  std::string loss_on = "all";   ///< all | completion
  bool pack = false;             ///< rows of seq_len tokens that hold several documents
  bool group_by_length = false;  ///< batches of examples of similar length
  double label_smoothing = 0;    ///< of the training loss, as transformers has it
  double z_loss = 0;             ///< weight of the mean of logsumexp(logits)^2 in the training loss
  std::vector<std::filesystem::path> eval_data;
  std::int64_t eval_every = 0;  ///< 0: only at the end
  std::int64_t early_stop = 0;  ///< evaluations without improvement; 0: off
  std::int64_t save_every = 0;  ///< 0: ten times a run
  std::int64_t keep = 2;
  bool layer_checkpointing = false;
  std::string device = "cpu";
  int threads = 0;
  bool resume = false;  ///< everything else comes from run.json, except steps / epochs
  /// With resume: long names of the flags that were given, with underscores ("batch_size",
  /// "alpha"). One of them that differs from run.json is Error(usage); all others are ignored.
  std::vector<std::string> given;
  std::string tool_version;  ///< recorded in run.json
  bool force = false;        ///< replace an existing run directory
  bool any_memory = false;   ///< begin although the memory seems too small
  bool dry_run = false;      ///< check everything, write nothing
};

/// One line of metrics.jsonl as it is written, for the progress line.
struct TrainEvent {
  std::int64_t step = 0, total_steps = 0;
  double loss = 0, lr = 0, grad_norm = 0, tokens_per_second = 0;
  std::int64_t tokens = 0, rss_bytes = 0;
  std::optional<double> eval_loss;  ///< set on evaluation events
};

/// What --pack made of the training data.
struct PackingReport {
  std::int64_t documents = 0, rows = 0, row_tokens = 0;
  double fill = 0;  ///< share of the rows that holds tokens
};

struct TrainReport {
  std::int64_t steps = 0, tokens = 0;
  double first_loss = 0, last_loss = 0, tokens_per_second = 0;
  std::optional<double> eval_loss;
  std::int64_t peak_rss_bytes = 0;
  std::int64_t trainable_parameters = 0, total_parameters = 0;
  std::optional<PackingReport> packing;
  std::filesystem::path adapter;  ///< RUN/adapter
  std::string stopped_because;    ///< "" (done), "interrupted", "early stop"
  JsonObject plan;                ///< dry run: what would be done
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual EngineInfo info() const = 0;
  /// Threads of LibTorch's operators; 0 leaves the default. Call before the first model.
  virtual void set_threads(int threads) = 0;
  virtual std::unique_ptr<EngineModel> load_model(const ModelOptions& options) = 0;
  /// Outputs of base and of base + adapters on a fixed input that depends only on the base's
  /// configuration.
  virtual Probe record_probe(const ModelOptions& options) = 0;
  virtual TrainReport train(const TrainOptions& options,
                            const std::function<void(const TrainEvent&)>& on_event,
                            const Sinks& sinks) = 0;
};

/// Opens the engine once per process. `path` names the shared object; empty looks beside the
/// running executable (../lib/lora/liblora_engine.so). Throws Error(resources) that says which file
/// is missing and how to get it.
Engine& load_engine(const std::filesystem::path& path = {});

/// The one symbol the shared object exports, and the interface version both sides must agree on.
inline constexpr int kEngineAbi = 2;
inline constexpr const char* kEngineSymbol = "lora_engine_open";
using EngineOpen = Engine* (*)(int abi);

}  // namespace lora
