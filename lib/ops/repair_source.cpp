#include "ops/repair_source.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <system_error>

#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/file_kind.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

// What belongs to an adapter beside weights and configuration.
constexpr std::array<std::string_view, 10> kCompanions{
    "README.md",      "added_tokens.json", "chat_template.jinja",
    "merges.txt",     "probe.safetensors", "special_tokens_map.json",
    "tokenizer.json", "tokenizer.model",   "tokenizer_config.json",
    "vocab.json"};
// Files of training runs that end like weights.
constexpr std::array<std::string_view, 6> kNoWeights{"optimizer",     "scheduler", "rng_state",
                                                     "training_args", "scaler",    "probe"};

bool is_weights_name(const fs::path& name) {
  const std::string text = name.filename().string();
  const std::string extension = name.extension().string();
  if (extension != ".safetensors" && extension != ".bin" && extension != ".pt" &&
      extension != ".pth")
    return false;
  return std::none_of(kNoWeights.begin(), kNoWeights.end(),
                      [&](std::string_view start) { return text.starts_with(start); });
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TensorMap read_weights(const fs::path& path) {
  TensorMap tensors;
  if (path.extension() != ".safetensors" && looks_like_torch_file(path)) {
    for (TorchEntry& entry : read_torch_file(path).entries)
      tensors.emplace(std::move(entry.name), std::move(entry.tensor));
  } else {
    tensors = read_safetensors(path).tensors;
  }
  if (tensors.empty())
    throw Error(ErrorKind::malformed,
                "cannot repair " + path.string() + ": it holds no tensor, expected LoRA weights")
        .in_file(path.string())
        .with_hint("save again from the live model or a checkpoint: lora save SOURCE -o DIR");
  return tensors;
}

bool has_equal_tensors(const TensorMap& x, const TensorMap& y) {
  return x.size() == y.size() &&
         std::equal(x.begin(), x.end(), y.begin(), [](const auto& a, const auto& b) {
           return a.first == b.first && has_equal_bytes(a.second, b.second);
         });
}

class Reader {
 public:
  Reader(const fs::path& path, RepairReport& report) : path_(path), report_(report) {}

  RepairSource run() {
    std::error_code ignored;
    if (fs::is_directory(path_, ignored)) {
      source_.folder = path_;
      find_weights();
    } else if (fs::is_regular_file(path_, ignored)) {
      source_.folder = path_.parent_path();
      source_.weights = path_;
    } else {
      const std::string kind = irregular_kind(path_);
      throw Error(ErrorKind::not_found, "cannot repair " + path_.string() + ": found " +
                                            (kind.empty() ? "nothing there" : kind) +
                                            ", expected an adapter directory or a weights file")
          .in_file(path_.string());
    }
    read_tensors();
    compare_twin();
    const fs::path name = source_.weights.filename();
    if (name != kAdapterWeightsName) {
      const bool is_safetensors = name.extension() == ".safetensors";
      add(name.string(), kAdapterWeightsName,
          is_safetensors ? "PEFT looks for this name only"
                         : "the same tensors; reading safetensors runs no code");
    }
    read_config();
    read_record();
    list_others();
    return std::move(source_);
  }

 private:
  void add(const std::string& from, const std::string& to, const std::string& why) {
    report_.changes.push_back({"file", from, to, why});
  }

  fs::path file(const std::string& name) const { return source_.folder / name; }

  static bool is_empty(const fs::path& path) {
    std::error_code failed;
    return fs::file_size(path, failed) == 0 && !failed;
  }

  void find_weights() {
    std::vector<std::string> names;
    std::error_code ignored;  // a link that leads nowhere is no file
    for (const fs::directory_entry& entry : fs::directory_iterator(source_.folder))
      if (entry.is_regular_file(ignored) && is_weights_name(entry.path()))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    std::vector<std::string> empty;
    std::erase_if(names, [&](const std::string& name) {
      if (is_empty(file(name))) empty.push_back(name);
      return is_empty(file(name));
    });
    const auto has = [&](const char* name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    std::vector<std::string> irregular;
    for (const char* name : {kAdapterWeightsName, kAdapterPickleName})
      if (const std::string kind = irregular_kind(file(name)); !kind.empty())
        irregular.push_back(std::string(name) + ", " + kind);
    if (names.empty())
      throw Error(ErrorKind::malformed, "cannot repair " + path_.string() + ": found " +
                                            (!irregular.empty() ? rules::join_some(irregular)
                                             : empty.empty()    ? "no weights"
                                                                : "only empty weight files") +
                                            ", expected " + kAdapterWeightsName +
                                            " or another file with LoRA tensors")
          .in_file(path_.string())
          .with_hint("save again from the live model or a checkpoint: lora save SOURCE -o DIR");
    for (const std::string& name : empty) add(name + " (0 bytes)", "left out", "it holds nothing");
    for (const std::string& what : irregular) add(what, "left out", "it is no file");
    if (has(kAdapterWeightsName)) {
      source_.weights = file(kAdapterWeightsName);
    } else if (has(kAdapterPickleName)) {
      source_.weights = file(kAdapterPickleName);
    } else if (names.size() == 1) {
      source_.weights = file(names[0]);
    } else {
      throw Error(ErrorKind::usage, "cannot repair " + path_.string() +
                                        ": it holds several files that may be the weights: " +
                                        rules::join_some(names))
          .in_file(path_.string())
          .with_hint("give the one file instead of the directory");
    }
  }

  void read_tensors() {
    try {
      source_.tensors = read_weights(source_.weights);
    } catch (Error& error) {
      if (error.kind() == ErrorKind::malformed && error.hint().empty()) {
        const fs::path twin = file(kAdapterPickleName);
        std::error_code ignored;
        const bool has_twin =
            source_.weights != twin && fs::exists(twin, ignored) && !is_empty(twin);
        error.with_hint(
            has_twin ? "another copy lies beside it; to use that: lora repair " + twin.string()
                     : "what is not in the file cannot be brought back: copy or download "
                       "it again, or save again from a checkpoint with lora save");
      }
      throw;
    }
  }

  // adapter_model.bin beside adapter_model.safetensors: PEFT never looks at it.
  void compare_twin() {
    const fs::path twin = file(kAdapterPickleName);
    std::error_code ignored;
    if (source_.weights.filename() != kAdapterWeightsName || path_ == source_.weights ||
        !fs::is_regular_file(twin, ignored) || is_empty(twin))
      return;
    std::string why = "it is not read where adapter_model.safetensors exists";
    try {
      const bool is_same = has_equal_tensors(read_weights(twin), source_.tensors);
      why = (is_same ? "the same tensors, bit for bit; " : "its tensors differ, but ") + why;
      if (!is_same)
        report_.notes.push_back(
            "adapter_model.bin holds other tensors than "
            "adapter_model.safetensors; if it is the right one: lora repair " +
            twin.string());
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::resources) throw;
      report_.notes.push_back("adapter_model.bin cannot be read: " + error.message());
    }
    add(kAdapterPickleName, "left out", why);
  }

  void read_config() {
    const fs::path path = file(kAdapterConfigName);
    std::error_code ignored;
    source_.config_is = irregular_kind(path);
    if (!fs::is_regular_file(path, ignored)) return;
    source_.config_text = read_text(path);
    if (path_ == source_.weights)
      report_.notes.push_back("using " + path.string() + " beside the weights");
  }

  void read_record() {
    try {
      source_.manifest = read_manifest(source_.folder);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::resources) throw;
      add(kManifestName, "left out", "it proves nothing any more: " + error.message());
    }
  }

  void list_others() {
    if (path_ == source_.weights) return;
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(source_.folder)) {
      const std::string name = entry.path().filename().string();
      const bool is_ours = name == source_.weights.filename() || name == kAdapterWeightsName ||
                           name == kAdapterPickleName || name == kAdapterConfigName ||
                           name == kManifestName;
      if (is_ours) continue;
      const bool is_companion =
          entry.is_regular_file(ignored) &&
          std::find(kCompanions.begin(), kCompanions.end(), name) != kCompanions.end();
      if (is_companion) {
        source_.companions.push_back(name);
      } else if (!is_weights_name(entry.path()) || !is_empty(entry.path())) {
        report_.left_behind.push_back(name);
      }
    }
    std::sort(source_.companions.begin(), source_.companions.end());
    std::sort(report_.left_behind.begin(), report_.left_behind.end());
  }

  const fs::path& path_;
  RepairReport& report_;
  RepairSource source_;
};

}  // namespace

RepairSource read_repair_source(const fs::path& path, RepairReport& report) {
  return Reader(path, report).run();
}

}  // namespace lora
