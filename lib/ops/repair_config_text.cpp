#include "ops/repair_config_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "lora/adapter/config_check.h"
#include "lora/base/error.h"
#include "lora/format/json_lenient.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// Members that names and shapes of the tensors say as well.
constexpr std::array<std::string_view, 8> kInTensors{
    "r",         "rank_pattern", "target_modules", "use_dora",
    "lora_bias", "bias",         "peft_type",      "modules_to_save"};
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::array<std::string_view, 3> kNumbers{"r", "lora_alpha", "lora_dropout"};
constexpr std::array<std::string_view, 6> kBooleans{
    "use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "inference_mode", "use_qalora"};
constexpr std::array<std::string_view, 2> kLists{"modules_to_save", "target_parameters"};

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::optional<double> number_in(const std::string& text) {
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

Json number_json(double value) {
  constexpr double kExact = 9007199254740992.0;
  if (value == std::floor(value) && std::fabs(value) < kExact) return std::int64_t(value);
  return value;
}

class ConfigText {
 public:
  ConfigText(JsonObject document, RepairReport& report)
      : document_(std::move(document)), report_(report) {}

  JsonObject run() {
    spell_numbers();
    spell_booleans();
    spell_lists();
    spell_type();
    drop_legacy();
    return std::move(document_);
  }

 private:
  void change(std::string_view field, const std::string& to, const std::string& why) {
    const Json* found = document_.find(field);
    report_.changes.push_back(
        {"configuration", std::string(field) + " " + (found ? dump_json(*found, {}) : "missing"),
         to, why});
  }

  void set(std::string_view field, Json value, const std::string& why) {
    change(field, std::string(field) + " " + dump_json(value, {}), why);
    document_[field] = std::move(value);
  }

  void drop(std::string_view field, const std::string& why) {
    change(field, "left out", why);
    document_.erase(field);
  }

  void spell_numbers() {
    for (const std::string_view field : kNumbers) {
      const Json* value = document_.find(field);
      if (value == nullptr) continue;
      const std::string* text = value->as_string();
      const auto number = text ? number_in(*text) : value->as_double();
      if (value->is_null()) {
        // A rank that is no value is one that the shapes tell.
        if (field != "r") drop(field, "null is no value here");
      } else if (text && number) {
        set(field, number_json(*number), "the same number, as a number");
      } else if (field == "r" && number && !value->is_integer() &&
                 number_json(*number).is_integer()) {
        set(field, number_json(*number), "the same number, as an integer");
      }
    }
  }

  void spell_booleans() {
    for (const std::string_view field : kBooleans) {
      const Json* value = document_.find(field);
      if (value == nullptr) continue;
      const std::string text = value->as_string() ? *value->as_string() : std::string();
      if (text == "true" || text == "True") set(field, true, "the same value, as a boolean");
      if (text == "false" || text == "False") set(field, false, "the same value, as a boolean");
      if (value->is_null()) drop(field, "null is no value here; PEFT's default is false");
    }
  }

  void spell_lists() {
    for (const std::string_view field : kLists) {
      const Json* value = document_.find(field);
      if (value != nullptr && value->is_string())
        set(field, JsonArray{*value}, "PEFT reads a list of names here");
    }
  }

  void spell_type() {
    const Json* type = document_.find("peft_type");
    const bool is_lora = type != nullptr && type->is_string() && *type->as_string() == "lora";
    if (type == nullptr || type->is_null() || is_lora)
      set("peft_type", "LORA", "the tensors are LoRA factors");
  }

  void drop_legacy() {
    for (const std::string_view field : {"merge_weights", "runtime_config"})
      if (document_.find(field) != nullptr)
        drop(field, "a switch of the running model; it says nothing about the weights");
    const Json* enabled = document_.find("enable_lora");
    if (enabled != nullptr && enabled->is_null())
      drop("enable_lora", "null: PEFT 0.3 and older wrote it for every adapter");
  }

  JsonObject document_;
  RepairReport& report_;
};

std::optional<LenientJson> parse(const RepairSource& source, std::string& lost_because,
                                 RepairReport& report) {
  if (!source.config_text) {
    lost_because = source.config_is.empty() ? "is missing" : "is " + source.config_is;
    return std::nullopt;
  }
  std::string_view text = *source.config_text;
  const bool has_mark = text.starts_with(kByteOrderMark);
  if (has_mark) text.remove_prefix(kByteOrderMark.size());
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    lost_because = "is empty";
    return std::nullopt;
  }
  try {
    LenientJson json = parse_json_lenient(text, kAdapterConfigName);
    if (json.value.is_object()) {
      if (has_mark)
        report.changes.push_back({"configuration", "a byte order mark", "left out",
                                  "PEFT reads plain UTF-8 only and fails on it"});
      return json;
    }
    lost_because = "is no object";
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::malformed) throw;
    // What a person can put right in one place is not lost.
    if (!error.hint().empty()) {
      const std::string path = (source.folder / kAdapterConfigName).string();
      throw Error(error.kind(), "cannot repair " + source.folder.string() + ": " + error.message())
          .in_file(path)
          .with_hint(error.hint());
    }
    lost_because = "is damaged (" + error.message() + ")";
  }
  return std::nullopt;
}

}  // namespace

RepairConfig read_repair_config(const RepairOptions& options, const RepairSource& source,
                                RepairReport& report) {
  RepairConfig result;
  if (options.config) {
    result.config = options.config;
    result.has_alpha = true;
    report.changes.push_back(
        {"configuration", kAdapterConfigName, "the given one", "--adapter-config says so"});
    return result;
  }
  const auto json = parse(source, result.lost_because, report);
  if (!json) return result;
  for (const std::string& key : json->repeated_keys)
    report.changes.push_back({"configuration", key + " given more than once", "its last value",
                              "Python's json module, which PEFT uses, takes the last"});
  const std::string path = (source.folder / kAdapterConfigName).string();
  const JsonObject document = ConfigText(*json->value.as_object(), report).run();
  result.has_alpha = document.find("lora_alpha") != nullptr;
  CheckedConfig checked = check_adapter_config(dump_json(document), path);
  std::vector<std::string> faults;
  for (const ConfigProblem& problem : checked.problems)
    if (!is_one_of(kInTensors, problem.field)) faults.push_back(problem.message);
  if (const Json* enabled = document.find("enable_lora"))
    faults.push_back("enable_lora is " + dump_json(*enabled, {}) +
                     ", which changes the meaning of the factors");
  if (!faults.empty())
    throw Error(ErrorKind::usage,
                "cannot repair " + path +
                    ": the tensors cannot tell what these should be: " + rules::join_some(faults))
        .in_file(path)
        .with_hint("correct them, or give a whole configuration with --adapter-config FILE");
  if (checked.config.rank == kNoRank) result.unusable_rank = dump_json(*document.find("r"), {});
  result.config = std::move(checked.config);
  return result;
}

}  // namespace lora
