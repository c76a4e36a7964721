#include <algorithm>
#include <system_error>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/error.h"
#include "lora/base/file_kind.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

bool has_file_at(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool has_directory_at(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::vector<std::string> entry_names(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code failed;
  for (fs::directory_iterator it(directory, failed), end; !failed && it != end;
       it.increment(failed))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 6;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kShown) text += " and " + std::to_string(names.size() - kShown) + " more";
  return text;
}

std::string listing(const fs::path& directory) {
  const std::vector<std::string> names = entry_names(directory);
  return names.empty() ? "nothing" : some_of(names);
}

Error no_adapter(const fs::path& path, const std::string& found) {
  return Error(ErrorKind::not_found, "cannot open adapter " + path.string() + ": found " + found +
                                         ", expected a directory with " + kAdapterConfigName +
                                         " and " + kAdapterWeightsName)
      .in_file(path.string());
}

// PEFT puts an adapter that is not called "default" into a folder of its name.
std::vector<std::string> adapters_inside(const fs::path& directory) {
  std::vector<std::string> names = entry_names(directory);
  std::erase_if(names,
                [&](const std::string& name) { return !is_adapter_directory(directory / name); });
  return names;
}

Error explain_directory_without_config(const fs::path& path) {
  const auto has = [&](const char* name) { return has_file_at(path / name); };
  if (has("run.json"))
    return no_adapter(path, "a run directory").with_hint("give " + (path / "adapter").string());
  if (const auto inside = adapters_inside(path); !inside.empty())
    return no_adapter(path, "only folders with adapters (" + some_of(inside) + ")")
        .with_hint("give " + (path / inside[0]).string());
  if (const std::string kind = irregular_kind(path / kAdapterConfigName); !kind.empty())
    return no_adapter(path, std::string(kAdapterConfigName) + ", " + kind)
        .with_hint("put the file itself in its place");
  // The cache of the hub: models--ORG--NAME/snapshots/COMMIT.
  if (const auto commits = adapters_inside(path / "snapshots"); !commits.empty())
    return no_adapter(path, "the cache of a hub repository")
        .with_hint((commits.size() == 1 ? "give its snapshot " : "give one of its snapshots, as ") +
                   (path / "snapshots" / commits[0]).string());
  if (has(kAdapterWeightsName) || has(kAdapterPickleName))
    return no_adapter(path, std::string("weights without ") + kAdapterConfigName)
        .with_hint("give the configuration with --adapter-config FILE");
  if (has("config.json"))
    return no_adapter(path, "a base checkpoint (config.json)")
        .with_hint("a base goes behind --base");
  return no_adapter(path, listing(path));
}

// A mistyped path: what lies beside it.
std::string hint_for_nothing(const fs::path& path) {
  const fs::path full = path.has_filename() ? path : path.parent_path();
  const fs::path parent = full.has_parent_path() ? full.parent_path() : fs::path(".");
  if (!has_directory_at(parent)) {
    const std::string text = path.string();
    return "there is no folder " + parent.string() +
           (std::count(text.begin(), text.end(), '/') == 1
                ? "; a repository of the hub must be downloaded first"
                : "");
  }
  const auto beside = adapters_inside(parent);
  return beside.empty()
             ? "check the path; adapters are folders with " + std::string(kAdapterConfigName)
             : "adapters in " + parent.string() + ": " + some_of(beside);
}

// PEFT takes whatever exists under the first name, and looks through links that lead nowhere.
fs::path weights_of(const fs::path& directory) {
  std::string found;
  std::error_code ignored;
  for (const char* name : {kAdapterWeightsName, kAdapterPickleName}) {
    const fs::path file = directory / name;
    if (has_file_at(file)) return file;
    const std::string kind = irregular_kind(file);
    if (!kind.empty() && found.empty()) found = std::string(name) + ", " + kind;
    if (fs::exists(file, ignored)) break;
  }
  if (!found.empty())
    throw Error(ErrorKind::malformed, "cannot open adapter " + directory.string() + ": found " +
                                          found + ", expected a regular file")
        .in_file(directory.string())
        .with_hint("put the file itself in its place");
  throw Error(ErrorKind::not_found, "cannot open adapter " + directory.string() + ": found " +
                                        listing(directory) + ", expected " + kAdapterWeightsName +
                                        " or " + kAdapterPickleName)
      .in_file(directory.string());
}

struct Weights {
  TensorMap tensors;
  std::shared_ptr<const MappedFile> mapping;
  bool is_pickle = false;
};

Error malformed(const fs::path& path, const std::string& found) {
  return Error(ErrorKind::malformed, "cannot read adapter weights " + path.string() + ": found " +
                                         found + ", expected a file with LoRA tensors")
      .in_file(path.string());
}

Weights read_weights(const fs::path& path) {
  std::error_code failed;
  if (fs::file_size(path, failed) == 0 && !failed) throw malformed(path, "an empty file");
  Weights weights;
  if (path.extension() != ".safetensors" && looks_like_torch_file(path)) {
    weights.is_pickle = true;
    for (TorchEntry& entry : read_torch_file(path).entries)
      if (!weights.tensors.emplace(entry.name, std::move(entry.tensor)).second)
        throw malformed(path, "the name " + entry.name + " twice");
  } else {
    weights.mapping = MappedFile::open(path);
    weights.tensors = parse_safetensors(weights.mapping->bytes(), weights.mapping, path).tensors;
  }
  if (weights.tensors.empty()) throw malformed(path, "no tensor");
  return weights;
}

Adapter open_weights(const fs::path& path, const fs::path& weights_path, AdapterConfig config,
                     const std::optional<std::string>& name) {
  Weights weights = read_weights(weights_path);
  Adapter adapter = make_adapter(std::move(config), std::move(weights.tensors), path, name);
  adapter.weights_path = weights_path;
  adapter.is_pickle = weights.is_pickle;
  if (weights.mapping) adapter.mappings.push_back(std::move(weights.mapping));
  return adapter;
}

Adapter open_file(const fs::path& path, const std::optional<AdapterConfig>& config,
                  const std::optional<std::string>& name) {
  if (path.filename() == kAdapterConfigName)
    throw no_adapter(path, "the configuration alone").with_hint("give its directory");
  if (!config)
    throw Error(ErrorKind::not_found, "cannot open adapter " + path.string() +
                                          ": found a file without a configuration, expected one "
                                          "beside it that is given too")
        .in_file(path.string())
        .with_hint(is_adapter_directory(path.parent_path())
                       ? "give its directory"
                       : "give the configuration with --adapter-config FILE");
  return open_weights(path, path, *config, name);
}

}  // namespace

bool is_adapter_directory(const fs::path& path) {
  return has_directory_at(path) && has_file_at(path / kAdapterConfigName);
}

Adapter open_adapter(const fs::path& path, const std::optional<AdapterConfig>& config,
                     const std::optional<std::string>& name) {
  if (has_directory_at(path)) {
    if (!config && !is_adapter_directory(path)) throw explain_directory_without_config(path);
    // The cheap check first: a directory without weights is no adapter whatever its config says.
    const fs::path weights = weights_of(path);
    return open_weights(path, weights,
                        config ? *config : read_adapter_config(path / kAdapterConfigName), name);
  }
  if (has_file_at(path)) return open_file(path, config, name);
  const std::string kind = irregular_kind(path);
  if (path.empty()) throw no_adapter(path, "an empty path");
  if (!kind.empty()) throw no_adapter(path, kind);
  throw no_adapter(path, "nothing").with_hint(hint_for_nothing(path));
}

}  // namespace lora
