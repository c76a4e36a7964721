#include <algorithm>
#include <set>
#include <system_error>

#include "lora/base/error.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

constexpr std::size_t kMostNeighbours = 32;

std::set<std::string> texts(const Json* field) {
  std::set<std::string> found;
  if (const JsonArray* array = field == nullptr ? nullptr : field->as_array())
    for (const Json& item : *array)
      if (const std::string* text = item.as_string()) found.insert(*text);
  return found;
}

// "embed_tokens 7" for every row that trainable_token_indices names; "" stands for the default.
std::set<std::string> token_rows(const AdapterConfig& config) {
  std::set<std::string> rows;
  const Json* field = config.other.find("trainable_token_indices");
  if (field == nullptr) return rows;
  const auto add = [&](const std::string& name, const Json& indices) {
    if (const JsonArray* array = indices.as_array())
      for (const Json& index : *array) rows.insert(name + " " + dump_json(index, {}));
  };
  if (const JsonObject* named = field->as_object())
    for (const auto& [name, indices] : *named) add(name, indices);
  add("embed_tokens", *field);
  return rows;
}

bool rewrites_base(const AdapterConfig& config) {
  const std::string* init = config.init_lora_weights.as_string();
  if (init == nullptr) return false;
  const Names prefixes{"pissa", "olora", "corda", "loftq", "lora_ga"};
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return init->starts_with(prefix); });
}

bool has_kasa(const AdapterConfig& config) {
  const Json* kasa = config.other.find("kasa_config");
  return kasa != nullptr && !kasa->is_null();
}

template <typename Set>
Names shared(const Set& a, const Set& b) {
  Names both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

// What PEFT refuses about two adapters in one model, as "field: reason".
Names conflicts(const AdapterConfig& a, const AdapterConfig& b) {
  Names found;
  if (a.bias != BiasMode::none && b.bias != BiasMode::none)
    found.emplace_back("bias: both train biases of the base");
  const std::set<std::string> saved_a(a.modules_to_save.begin(), a.modules_to_save.end());
  const std::set<std::string> saved_b(b.modules_to_save.begin(), b.modules_to_save.end());
  if (const Names both = shared(saved_a, saved_b); !both.empty())
    found.push_back("modules_to_save: both replace " + join_some(both));
  if (const Names both = shared(token_rows(a), token_rows(b)); !both.empty())
    found.push_back("trainable_token_indices: both have the rows " + join_some(both));
  const auto parameters_a = texts(a.other.find("target_parameters"));
  const auto parameters_b = texts(b.other.find("target_parameters"));
  if (!parameters_a.empty() && !parameters_b.empty() && parameters_a != parameters_b)
    found.emplace_back("target_parameters: the sets differ");
  if (rewrites_base(a) && rewrites_base(b))
    found.emplace_back("init_lora_weights: both rewrite the base");
  if (has_kasa(a) != has_kasa(b))
    found.emplace_back("kasa_config: one truncates the base, the other expects it whole");
  if (std::holds_alternative<std::string>(a.target_modules) !=
      std::holds_alternative<std::string>(b.target_modules))
    found.emplace_back("target_modules: a list and an expression cannot be combined");
  return found;
}

// PEFT saves the adapters of one model into sub-directories of one directory.
std::vector<fs::path> neighbours(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (fs::directory_iterator it(directory, failed), end; !failed && it != end;
       it.increment(failed)) {
    std::error_code ignored;
    const bool is_step = it->path().filename().string().starts_with("checkpoint");
    if (!is_step && !it->is_symlink(ignored) && is_adapter_directory(it->path()))
      found.push_back(it->path());
  }
  std::sort(found.begin(), found.end());
  if (found.size() > kMostNeighbours) found.resize(kMostNeighbours);
  return found;
}

void set_conflict(const Subject& subject, Report& report) {
  const fs::path& path = subject.adapter.path;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return;
  for (const fs::path& other : neighbours(path)) {
    try {
      const AdapterConfig config = read_adapter_config(other / kAdapterConfigName);
      if (const Names found = conflicts(subject.adapter.config, config); !found.empty())
        report.add("cannot be in one model with " + other.filename().string() + ": " +
                   join_some(found));
    } catch (const Error&) {
      // What is wrong with the other one is for its own run.
    }
  }
}

}  // namespace

const std::vector<Rule>& set_rules() {
  static const std::vector<Rule> rules{
      {{"LV318", "adapter-set-conflict", Severity::note,
        "the configurations of adapters in sub-directories, where PEFT saves those of one model",
        "These adapters cannot be loaded together; loading them so is an error.",
        "load one of them, or merge one into the base first"},
       set_conflict},
  };
  return rules;
}

}  // namespace lora::rules
