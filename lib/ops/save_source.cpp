#include "ops/save_source.h"

#include <algorithm>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/error.h"
#include "ops/rules/rule.h"
#include "ops/state_dict.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

// The adapters of a directory as PEFT lays several out, by name; empty for anything else.
std::map<std::string, fs::path> adapters_in(const fs::path& source) {
  std::map<std::string, fs::path> found;
  if (!fs::is_directory(source)) return found;
  if (is_adapter_directory(source)) found.emplace(kDefaultAdapter, source);
  for (const fs::directory_entry& entry : fs::directory_iterator(source))
    if (is_adapter_directory(entry.path()))
      found.emplace(entry.path().filename().string(), entry.path());
  return found;
}

// Which names the keys of an adapter's file carry; that says nothing about its configuration.
std::vector<std::string> names_inside(const fs::path& adapter) {
  const Adapter opened = open_adapter(adapter, AdapterConfig());
  std::vector<std::string> names{opened.name};
  for (const auto& [name, tensors] : opened.others) names.push_back(name);
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Error no_single_adapter(const fs::path& source, const std::vector<std::string>& names,
                        const std::optional<std::string>& wanted) {
  return Error(ErrorKind::usage,
               "cannot save from " + source.string() + ": it holds " +
                   (names.empty() ? "no adapter"
                                  : "the adapters " + rules::join_some(names, names.size())) +
                   ", expected " + (wanted ? "one called " + *wanted : "a choice of one"))
      .in_file(source.string())
      .with_hint("--adapter-name NAME picks one, --adapter-name all saves every one");
}

SaveSource choose_source(const SaveOptions& options) {
  const auto found = adapters_in(options.source);
  // A directory that is an adapter itself stands for that one, whatever lies beside it.
  if (found.empty() || (!options.adapter_name && found.contains(kDefaultAdapter)))
    return {options.source, options.adapter_name};
  const auto named = options.adapter_name ? found.find(*options.adapter_name) : found.begin();
  if (named != found.end() && named->second == options.source)
    return {options.source, options.adapter_name};
  if (named != found.end() && (options.adapter_name || found.size() == 1))
    return {named->second, std::nullopt};
  std::vector<std::string> names;
  for (const auto& [name, path] : found) names.push_back(name);
  if (found.contains(kDefaultAdapter))
    for (const std::string& name : names_inside(options.source)) {
      if (name == options.adapter_name) return {options.source, name};
      if (!contains(names, name)) names.push_back(name);
    }
  throw no_single_adapter(options.source, names, options.adapter_name);
}

std::map<std::string, SaveSource> all_sources(const fs::path& source) {
  std::map<std::string, SaveSource> sources;
  const auto add = [&](const std::string& name, SaveSource found) {
    if (!sources.emplace(name, std::move(found)).second)
      throw Error(ErrorKind::malformed, "cannot save from " + source.string() +
                                            ": it holds two adapters called " + name +
                                            ", one in its file and one in a folder")
          .in_file(source.string());
  };
  const auto folders = adapters_in(source);
  for (const auto& [name, path] : folders) {
    const std::vector<std::string> inside =
        path == source ? names_inside(path) : std::vector<std::string>();
    if (inside.size() < 2) {
      add(name, {path, std::nullopt});
    } else {
      for (const std::string& own : inside) add(own, {path, own});
    }
  }
  if (folders.empty())
    for (const std::string& name : adapter_names(read_state_dict(source)))
      add(name, {source, name});
  if (sources.empty())
    throw Error(ErrorKind::malformed, "cannot save from " + source.string() +
                                          ": found no adapter in it, expected LoRA weights")
        .in_file(source.string());
  return sources;
}

}  // namespace lora
