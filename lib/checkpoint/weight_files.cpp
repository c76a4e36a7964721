#include "checkpoint/weight_files.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <system_error>

#include "checkpoint/listing.h"
#include "lora/base/error.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr std::array<std::string_view, 4> kSuffixes{".safetensors", ".pth", ".pt", ".bin"};

// Files that trainers and PEFT leave beside weights.
bool is_never_a_base(const std::string& name) {
  static const std::set<std::string> names{"training_args.bin", "optimizer.pt",     "optimizer.bin",
                                           "scheduler.pt",      "rng_state.pth",    "scaler.pt",
                                           "probe.safetensors", "state.safetensors"};
  return names.contains(name) || name.starts_with("adapter_model.") ||
         name.starts_with("rng_state_");
}

bool looks_like_shard(const std::string& name) { return name.find("-of-") != std::string::npos; }

}  // namespace

bool has_weight_suffix(const stdfs::path& path) {
  const std::string name = path.filename().string();
  return std::any_of(kSuffixes.begin(), kSuffixes.end(),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

WeightFiles find_weight_files(const stdfs::path& directory) {
  std::error_code ignored;
  for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
    if (stdfs::exists(directory / name, ignored)) return {directory / name, {}};
    const stdfs::path index = directory / (std::string(name) + ".index.json");
    if (stdfs::exists(index, ignored)) return {{}, index};
  }

  std::vector<std::string> candidates;
  std::error_code failed;
  for (const auto& entry : stdfs::directory_iterator(directory, failed)) {
    const std::string name = entry.path().filename().string();
    if (has_weight_suffix(name) && !is_never_a_base(name) && !entry.is_directory(ignored))
      candidates.push_back(name);
  }
  if (failed)
    throw Error(ErrorKind::malformed, "cannot list " + directory.string() + ": " + failed.message())
        .in_file(directory.string());
  std::sort(candidates.begin(), candidates.end());
  if (candidates.empty())
    throw Error(ErrorKind::not_found, "cannot open base " + directory.string() +
                                          ": no weights in it, expected model.safetensors, "
                                          "pytorch_model.bin or their index")
        .in_file(directory.string());
  if (std::all_of(candidates.begin(), candidates.end(), looks_like_shard))
    throw Error(ErrorKind::malformed, "cannot open base " + directory.string() + ": found shards " +
                                          list_names(candidates) +
                                          " without their index, expected "
                                          "model.safetensors.index.json")
        .in_file(directory.string());
  if (candidates.size() > 1)
    throw Error(ErrorKind::malformed,
                "cannot open base " + directory.string() +
                    ": several files could be its weights: " + list_names(candidates))
        .in_file(directory.string())
        .with_hint("give the file itself as base");
  return {directory / candidates.front(), {}};
}

}  // namespace lora
