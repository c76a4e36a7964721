#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/keys.h"
#include "lora/adapter/name_mapping.h"
#include "ops/rules/grouping.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

using Names = std::vector<std::string>;

std::string share(std::size_t count, std::size_t total) {
  return count == total ? "all " + counted(total, "key")
                        : std::to_string(count) + " of " + counted(total, "key");
}

// "a.inner.b" -> "a.b"; empty without such a component.
std::string without_inner(const std::string& path) {
  constexpr std::string_view component = ".inner.";
  const std::string framed = "." + path;
  const auto at = framed.find(component);
  if (at == std::string::npos) return {};
  std::string rest = framed.substr(0, at + 1) + framed.substr(at + component.size());
  return rest.substr(1);
}

void wrapper_prefix(const Subject& subject, Report& report) {
  std::map<std::string, std::size_t> wrappers;
  Names wrapped;
  for (const std::string& key : subject.adapter.unclean_keys) {
    const ParsedKey parsed = parse_key(key);
    if (parsed.wrappers.empty()) continue;
    wrapped.push_back(key);
    for (const std::string& name :
         std::set<std::string>(parsed.wrappers.begin(), parsed.wrappers.end()))
      ++wrappers[name];
  }
  if (!wrapped.empty()) {
    Names parts;
    for (const auto& [name, count] : wrappers)
      parts.push_back(name + "." + (count == wrapped.size() ? "" : " in " + std::to_string(count)));
    report.add(share(wrapped.size(), subject.adapter.file_keys) + " carry wrapper components (" +
                   report.list(parts) + "); PEFT loads none of these tensors",
               {.tensor = wrapped.front(), .module = {}, .hint = {}, .severity = {}});
  }
  // A model may have a module of this name: only a base can convict it.
  const std::set<std::string> in_base = paths_of(subject.base_modules);
  Names inner;
  for (const LoraModule& module : subject.adapter.modules)
    if (!in_base.contains(module.module_path) &&
        in_base.contains(without_inner(module.module_path)))
      inner.push_back(module.module_path);
  if (!inner.empty())
    report.add(
        counted(inner.size(), "module") + " of the file " + (inner.size() == 1 ? "is" : "are") +
            " in the base without the component inner.: " + report.list(group_layers(inner), 3),
        {.tensor = {}, .module = inner.front(), .hint = {}, .severity = {}});
}

void foreign_prefix(const Subject& subject, Report& report) {
  const std::set<std::string> in_base = paths_of(subject.base_modules);
  std::map<std::string, Names> by_prefix;
  std::set<std::string> sites;
  std::string first;
  std::size_t bare = 0, foreign = 0;
  for (const auto& [key, tensor] : subject.adapter.tensors) {
    const std::string path = parse_key(key).module_path;
    const std::string prefix = prefix_before(path);
    if (prefix.empty()) continue;
    ++foreign;
    if (first.empty()) first = key;
    by_prefix[prefix].push_back(path.substr(path.find(kPeftPrefix) + kPeftPrefix.size()));
  }
  for (const std::string& key : subject.adapter.unclean_keys) {
    const ParsedKey parsed = parse_key(key);
    if (!parsed.wrappers.empty() || parsed.has_peft_prefix ||
        !prefix_before(parsed.module_path).empty())
      continue;
    ++bare;
    if (first.empty()) first = key;
    sites.insert(parsed.module_path);
  }
  const std::size_t total = subject.adapter.file_keys;
  for (const auto& [prefix, paths] : by_prefix) {
    const std::string what =
        prefix == kPeftPrefix ? "the prefix base_model.model. twice"
                              : "the foreign prefix " + prefix + " in front of base_model.model.";
    std::string message = share(paths.size(), total) + " carry " + what;
    if (!in_base.empty())
      message += "; without it " +
                 std::to_string(std::count_if(
                     paths.begin(), paths.end(),
                     [&](const std::string& path) { return in_base.contains(path); })) +
                 " of them resolve in the base";
    report.add(std::move(message), {.tensor = first, .module = {}, .hint = {}, .severity = {}});
  }
  if (bare == 0) return;
  std::string message = share(bare, total) + " lack the prefix base_model.model.";
  if (!in_base.empty()) {
    const NameMapping mapping =
        map_names({sites.begin(), sites.end()}, {in_base.begin(), in_base.end()});
    message += "; " + std::to_string(mapping.unchanged) + " of " + counted(sites.size(), "module") +
               " are in the base as they stand";
    if (!mapping.renames.empty())
      message += ", " + std::to_string(mapping.renames.size()) +
                 " more by renaming: " + describe_rules(mapping);
  }
  report.add(std::move(message), {.tensor = first, .module = {}, .hint = {}, .severity = {}});
}

std::string quoted(const std::string& name) { return "\"" + name + "\""; }

// Whether PeftModel.from_pretrained finds a tensor whose key carries a name. It calls the adapter
// "default" and leaves keys alone that are none of a file, which is how state_dict() of a live
// model happens to load; parts that are renamed on loading do not.
bool is_found_by_peft(const ParsedKey& parsed, const std::string& key) {
  if (parsed.adapter_name != "default") return false;
  return parsed.role != KeyRole::saved && parsed.role != KeyRole::trainable_tokens &&
         (parsed.role != KeyRole::magnitude || key.ends_with(".weight"));
}

// With bias="all" PEFT writes a saved module's biases under its own names and those of a file.
bool is_second_name(const ParsedKey& parsed, const AdapterConfig& config) {
  return config.bias == BiasMode::all && parsed.role == KeyRole::saved &&
         parsed.parameter == "bias";
}

void several_adapters(const Adapter& adapter, Report& report) {
  Names listed{quoted(adapter.name)};
  for (const auto& [name, tensors] : adapter.others)
    listed.push_back(quoted(name) + " (" + counted(tensors.size(), "tensor") + ")");
  report.add("the file holds " + std::to_string(listed.size()) + " adapters, " +
                 report.list(listed) + ", and PeftModel.from_pretrained loads " +
                 (adapter.name == "default" ? "only that called \"default\"" : "none of them"),
             {.tensor = {},
              .module = {},
              .hint = "choose one: lora save ADAPTER --adapter-name NAME -o DIR",
              .severity = {}});
}

void adapter_name(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  if (!adapter.others.empty()) {
    several_adapters(adapter, report);
    return;
  }
  std::map<bool, Names> named;
  for (const std::string& key : adapter.unclean_keys) {
    const ParsedKey parsed = parse_key(key);
    if (parsed.wrappers.empty() && parsed.has_peft_prefix && !parsed.adapter_name.empty() &&
        !is_second_name(parsed, adapter.config))
      named[is_found_by_peft(parsed, key)].push_back(key);
  }
  for (const auto& [is_found, keys] : named)
    report.add(share(keys.size(), adapter.file_keys) + " still carry the adapter name " +
                   quoted(adapter.name) +
                   (is_found ? "" : "; PeftModel.from_pretrained does not load these tensors"),
               {.tensor = keys.front(),
                .module = {},
                .hint = {},
                .severity = is_found ? Severity::note : Severity::error});
}

}  // namespace

const std::vector<Rule>& name_rules() {
  static const std::vector<Rule> rules{
      {{"LV305", "key-wrapper-prefix", Severity::error, "components that wrappers add to names",
        "Names carry _orig_mod., module., _fsdp_wrapped_module. or inner.; PEFT loads none of the "
        "tensors.",
        "strip them: lora repair ADAPTER -o DIR"},
       wrapper_prefix},
      {{"LV306", "key-foreign-prefix", Severity::error, "the prefix of every name",
        "Names do not start with base_model.model. once, so PeftModel.from_pretrained loads none "
        "of them.",
        "correct it: lora repair ADAPTER --base BASE -o DIR"},
       foreign_prefix},
      {{"LV307", "key-adapter-name", Severity::error, "adapter names inside keys",
        "Keys carry an in-memory adapter name that PEFT does not look for, or those of several "
        "adapters (a note for \"default\", which PEFT accepts by accident).",
        "rewrite it with clean names: lora repair ADAPTER -o DIR"},
       adapter_name},
  };
  return rules;
}

}  // namespace lora::rules
