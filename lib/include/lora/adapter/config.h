// adapter_config.json of PEFT's LoRA (the field set of PEFT 0.21.2).
//
// Every field of a file is read and kept; fields this program does not know are preserved. Written
// files equal PEFT's byte for byte for the same configuration, once the set-valued arrays of PEFT's
// file (target_modules, exclude_modules) are sorted.
#pragma once

#include <cstdint>
#include <filesystem>
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

  /// Names in `other` that PEFT 0.21.2 does not know.
  std::vector<std::string> unknown_fields() const;
};

/// Throws Error(malformed) naming the field, its type and the expected type; a peft_type other than
/// LORA is Error(unsupported). `context` is the path used in messages.
AdapterConfig parse_adapter_config(const Json& document, const std::string& context);
AdapterConfig read_adapter_config(const std::filesystem::path& path);

/// The document as PEFT 0.21.2 writes it: all 41 fields, sorted, `inference_mode` true.
Json to_json(const AdapterConfig& config);
/// The exact bytes of the file.
std::string dump_adapter_config(const AdapterConfig& config);

/// Pattern look-up as PEFT does: first key k with re.match("(.*\.)?(k)$", module_path).
std::int64_t rank_of(const AdapterConfig& config, std::string_view module_path);
double alpha_of(const AdapterConfig& config, std::string_view module_path);
/// alpha/r, or alpha/sqrt(r) with use_rslora, for a module of this path and rank.
double scaling_of(const AdapterConfig& config, std::string_view module_path, std::int64_t rank);

}  // namespace lora
