#include "lora/adapter/config_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "adapter/config_fields.h"
#include "adapter/name_pattern.h"
#include "adapter/python_regex.h"
#include "lora/base/error.h"
#include "lora/format/json_lenient.h"

namespace lora {
namespace {

// The rank that a value of the wrong type spells out ("8", 8.0); kNoRank where it spells none.
std::int64_t rank_meant(const Json& value) {
  double number = value.is_number() ? *value.as_double() : 0;
  if (const std::string* text = value.as_string()) {
    const auto parsed = std::from_chars(text->data(), text->data() + text->size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != text->data() + text->size()) return kNoRank;
  }
  constexpr double kLargest = 2147483647;
  const bool is_rank = number >= 1 && number <= kLargest && number == std::floor(number);
  return is_rank ? static_cast<std::int64_t>(number) : kNoRank;
}

class Check {
 public:
  Check(const LenientJson& json, const std::string& context)
      : json_(json), context_(context), reader_(*json.value.as_object(), context) {}

  CheckedConfig run() {
    for (const std::string& key : json_.repeated_keys)
      add(key.substr(0, key.find('.')), "the key " + key + " is given more than once");
    peft_type();
    members();
    expressions();
    for (ConfigProblem& conflict : find_conflicts(result_.config))
      result_.problems.push_back(std::move(conflict));
    return std::move(result_);
  }

 private:
  void add(std::string field, std::string message) {
    result_.problems.push_back({std::move(field), std::move(message)});
  }

  // Runs `read`; its error becomes a problem of this field.
  template <typename Read>
  bool attempt(std::string_view field, Read read) {
    try {
      read();
      return true;
    } catch (const Error& error) {
      const std::string prefix = "cannot read " + context_ + ": ";
      const std::string& message = error.message();
      add(std::string(field),
          message.starts_with(prefix) ? message.substr(prefix.size()) : message);
      return false;
    }
  }

  void unusable_rank(const Json& value) {
    const std::int64_t rank = rank_meant(value);
    result_.config.rank = rank;
    result_.problems.back().message +=
        "; PEFT fails on it when it makes the layers, " +
        (rank == kNoRank ? std::string("and no rank can be read from it")
                         : "read as " + std::to_string(rank) + " here");
  }

  void peft_type() {
    const Json* type = reader_.find("peft_type");
    if (type == nullptr) {
      add("peft_type", "field \"peft_type\" is missing, expected \"LORA\"");
    } else if (!type->is_string()) {
      attempt("peft_type", [&] { reader_.refuse("peft_type", *type, "\"LORA\""); });
    } else if (*type->as_string() != "LORA") {
      throw Error(ErrorKind::unsupported, "cannot use " + context_ + ": its peft_type is \"" +
                                              *type->as_string() + "\", expected \"LORA\"")
          .in_file(context_);
    } else {
      result_.config.spelling["peft_type"] = *type;
    }
  }

  void members() {
    AdapterConfig& config = result_.config;
    for (const TypedMember& member : typed_members()) {
      const Json* value = reader_.find(member.field);
      const bool is_fine = attempt(member.field, [&] { member.read(reader_, config); });
      if (!is_fine && member.field == "r") unusable_rank(*value);
      // These two came from Python sets: their order in the file means nothing.
      if (is_fine && value != nullptr && member.field != "target_modules" &&
          member.field != "exclude_modules")
        config.spelling[member.field] = *value;
    }
    for (const auto& [field, value] : *json_.value.as_object()) {
      if (is_typed_field(field)) continue;
      const std::string_view name = field;
      const bool is_known = untyped_defaults().find(field) != nullptr;
      if (!is_known || attempt(name, [&] { check_untyped_field(reader_, name); }))
        config.other[field] = value;
    }
  }

  void pattern(std::string_view field, NumberPattern& pattern) {
    const auto steps = std::make_shared<RegexSteps>();
    const auto broken = std::remove_if(pattern.begin(), pattern.end(), [&](const auto& entry) {
      return !attempt(field, [&] { NamePattern(entry.first, steps); });
    });
    if (broken == pattern.end()) return;
    pattern.erase(broken, pattern.end());
    result_.config.spelling.erase(field);
  }

  void selector(std::string_view field, ModuleSelector& selector) {
    const auto* expression = std::get_if<std::string>(&selector);
    if (expression != nullptr && !attempt(field, [&] { PythonRegex{*expression}; })) selector = {};
  }

  void names(std::string_view field, std::vector<std::string>& names) {
    const auto broken = std::remove_if(names.begin(), names.end(), [&](const std::string& name) {
      if (!name.empty()) return !attempt(field, [&] { PythonRegex{name}; });
      add(std::string(field), "field \"" + std::string(field) + "\" holds an empty name");
      return true;
    });
    if (broken == names.end()) return;
    names.erase(broken, names.end());
    result_.config.spelling.erase(field);
  }

  void expressions() {
    AdapterConfig& config = result_.config;
    pattern("rank_pattern", config.rank_pattern);
    pattern("alpha_pattern", config.alpha_pattern);
    selector("target_modules", config.target_modules);
    selector("exclude_modules", config.exclude_modules);
    names("modules_to_save", config.modules_to_save);
    names("layers_pattern", config.layers_pattern);
    if (auto* targets = std::get_if<std::vector<std::string>>(&config.target_modules))
      if (std::erase(*targets, "") != 0)
        add("target_modules", "field \"target_modules\" holds an empty name");
  }

  const LenientJson& json_;
  const std::string& context_;
  FieldReader reader_;
  CheckedConfig result_;
};

}  // namespace

CheckedConfig check_adapter_config(std::string_view text, const std::string& context) {
  const LenientJson json = parse_json_lenient(text, context);
  if (!json.value.is_object())
    throw Error(ErrorKind::malformed, "cannot read " + context + " as adapter_config.json: found " +
                                          std::string(json.value.type_name()) +
                                          ", expected an object")
        .in_file(context);
  return Check(json, context).run();
}

}  // namespace lora
