// adapter_config.json of PEFT's LoRA (the field set of PEFT 0.21.2).
//
// Every field of a file is read and kept; fields this program does not know are preserved. Written
// files equal PEFT's byte for byte for the same configuration, once the set-valued arrays of PEFT's
// file (target_modules, exclude_modules) are sorted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lora/format/json.h"

namespace lora {

/// target_modules / exclude_modules: absent, a list of names (suffix match), or one regular
/// expression that must match a whole module path ("all-linear" is a string in PEFT too).
using ModuleSelector = std::variant<std::monostate, std::vector<std::string>, std::string>;

/// rank_pattern / alpha_pattern in evaluation order (PEFT: first match wins; files are sorted).
using NumberPattern = std::vector<std::pair<std::string, double>>;

enum class BiasMode { none, all, lora_only };

struct AdapterConfig {
  std::string peft_type = "LORA";
  std::optional<std::string> task_type;  ///< "CAUSAL_LM", ...
  std::optional<std::string> peft_version;
  std::optional<std::string> base_model_name_or_path;
  std::optional<std::string> revision;
  std::int64_t rank = 8;  ///< `r`
  double alpha = 8;       ///< `lora_alpha`
  double dropout = 0;     ///< `lora_dropout`
  bool use_rslora = false;
  bool use_dora = false;
  bool lora_bias = false;
  bool fan_in_fan_out = false;
  BiasMode bias = BiasMode::none;
  ModuleSelector target_modules;
  ModuleSelector exclude_modules;
  NumberPattern rank_pattern;
  NumberPattern alpha_pattern;
  std::vector<std::string> modules_to_save;
  std::vector<std::int64_t> layers_to_transform;  ///< empty: all layers
  std::vector<std::string> layers_pattern;
  Json init_lora_weights = true;  ///< true, false, "gaussian", "pissa", ...
  Json auto_mapping;              ///< null or an object

  /// All other members of the file as they were (PEFT fields without meaning here, unknown ones).
  /// A configuration made by this program starts from PEFT's defaults.
  JsonObject other;

  /// The typed members as a file spelled them (16.0 for 16, one layer as 3 or [3], null or []).
  /// Filled by parse_adapter_config; to_json uses a spelling only while the typed value still means
  /// the same, so changing a typed member is enough.
  JsonObject spelling;

  /// Names in `other` that PEFT 0.21.2 does not know.
  std::vector<std::string> unknown_fields() const;
};

/// Throws Error(malformed) naming the field, its value, its type and the expected type, or two
/// fields that exclude each other (see find_conflict); a peft_type other than LORA is
/// Error(unsupported). Fields that are absent take PEFT's defaults; ranges: r and every rank
/// from 1 to 2^31-1, alpha any finite number, lora_dropout in [0, 1). `context` is the path used in
/// messages.
AdapterConfig parse_adapter_config(const Json& document, const std::string& context);

/// The same from a file; throws as read_json_file does as well.
AdapterConfig read_adapter_config(const std::filesystem::path& path);

/// What PEFT's LoraConfig refuses although each value is fine alone (an unknown task_type,
/// layers_to_transform with a regular expression, lora_bias with DoRA, ...); nullopt when nothing.
/// The text names both fields and fits into a message.
std::optional<std::string> find_conflict(const AdapterConfig& config);

/// The document as PEFT 0.21.2 writes it: all 41 fields and the unknown ones of `other`, target and
/// exclude lists sorted without repeats, `inference_mode` true. An absent peft_version becomes
/// "0.21.2", as when PEFT saves, and "0.18.1" with target_parameters, whose layout it decides.
Json to_json(const AdapterConfig& config);

/// The exact bytes of the file (Python's json.dumps with indent=2, sort_keys=True; no final
/// newline).
std::string dump_adapter_config(const AdapterConfig& config);

/// Major and minor number of peft_version; nullopt when it is absent (files from before 0.18.0, or
/// written by another program) or not of that form.
std::optional<std::pair<int, int>> peft_release(const AdapterConfig& config);

/// init_lora_weights when it names an initialisation that subtracts the first factors from the
/// base's weights (pissa, pissa_niter_N, corda, olora, loftq, lora_ga; spelled as PEFT compares
/// them): such an adapter belongs to the changed base. Empty for every other initialisation.
std::string base_changing_init(const AdapterConfig& config);

/// Whether PEFT repeats that change each time the adapter is loaded. It does so for all of them but
/// lora_ga, whose gradients exist only while the adapter is made.
bool changes_base_on_load(const AdapterConfig& config);

/// Pattern look-up as PEFT does: the first key k in the order of the list with
/// re.match("(.*\.)?(k)$", module_path), else `r` / `lora_alpha`. Throws Error(usage) for a key
/// that is no valid regular expression.
std::int64_t rank_of(const AdapterConfig& config, std::string_view module_path);
double alpha_of(const AdapterConfig& config, std::string_view module_path);

/// alpha/r, or alpha/sqrt(r) with use_rslora, for a module of this path and rank (> 0).
double scaling_of(const AdapterConfig& config, std::string_view module_path, std::int64_t rank);

/// rank_of, alpha_of and scaling_of for many modules: every pattern is compiled once.
class PatternTable {
 public:
  explicit PatternTable(const AdapterConfig& config);
  ~PatternTable();
  PatternTable(PatternTable&&) noexcept;
  PatternTable& operator=(PatternTable&&) noexcept;

  std::int64_t rank_of(std::string_view module_path) const;
  double alpha_of(std::string_view module_path) const;
  double scaling_of(std::string_view module_path, std::int64_t rank) const;

  /// Keys of both patterns that match none of these module paths, sorted.
  std::vector<std::string> dead_keys(const std::vector<std::string>& module_paths) const;

 private:
  struct Entries;
  std::unique_ptr<const Entries> entries_;
};

}  // namespace lora
