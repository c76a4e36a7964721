#include "ops/merge/files.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "lora/base/error.h"
#include "lora/format/torch_file.h"

namespace lora::merging {
namespace {

namespace stdfs = std::filesystem;

class FileLayout {
 public:
  FileLayout(const Checkpoint& base, Layout& layout) : base_(base), layout_(layout) {}

  void run(bool as_safetensors) {
    const bool is_safetensors = layout_.form.mappings.size() == base_.files.size();
    const bool is_torch = !is_safetensors && looks_like_torch_file(base_.files.front());
    if (is_safetensors) {
      for (const stdfs::path& path : base_.files) take_safetensors(path);
    } else if (is_torch && !as_safetensors) {
      for (const stdfs::path& path : base_.files) take_torch(path);
    } else {
      layout_.notes.push_back("the weights are written as safetensors, the base's are in " +
                              base_.files.front().filename().string());
      layout_.files.push_back({"model.safetensors", pytorch_metadata(), {}, false, {}});
    }
    for (const auto& [name, tensor] : layout_.form.tensors)
      if (!placed_.contains(name)) file_for(name).tensors.push_back(name);
    for (OutputFile& file : layout_.files)
      if (file.is_torch) share_storages(file);
    if (is_safetensors || (is_torch && !as_safetensors)) find_index(is_torch);
  }

 private:
  void take_safetensors(const stdfs::path& path) {
    SafetensorsFile file = read_safetensors(path);
    OutputFile output{path.filename().string(),
                      file.has_metadata ? file.metadata : pytorch_metadata(),
                      std::move(file.in_order),
                      false,
                      {}};
    for (const std::string& name : output.tensors)
      if (layout_.form.find(name) == nullptr)
        throw Error(ErrorKind::internal, "cannot merge into " + base_.path.string() + ": tensor " +
                                             name + " of " + output.name +
                                             " is no tensor of the base")
            .in_tensor(name);
    add(std::move(output));
  }

  void take_torch(const stdfs::path& path) {
    const TorchFile file = read_torch_file(path);
    OutputFile output{path.filename().string(), {}, {}, true, {}};
    for (const TorchEntry& entry : file.entries)
      if (layout_.form.find(entry.name) != nullptr) output.tensors.push_back(entry.name);
    if (!file.ignored.empty())
      layout_.notes.push_back(
          "what " + output.name + " holds besides its state dict is not carried over (" +
          file.ignored.front() + (file.ignored.size() > 1 ? ", ..." : "") + ")");
    add(std::move(output));
  }

  void add(OutputFile file) {
    placed_.insert(file.tensors.begin(), file.tensors.end());
    layout_.files.push_back(std::move(file));
  }

  // An untied head goes beside its embedding, anything else new into the last file.
  OutputFile& file_for(const std::string& name) {
    const auto alias = base_.aliases.find(name);
    if (alias != base_.aliases.end())
      for (OutputFile& file : layout_.files)
        if (std::find(file.tensors.begin(), file.tensors.end(), alias->second) !=
            file.tensors.end())
          return file;
    return layout_.files.back();
  }

  void share_storages(OutputFile& file) const {
    const std::set<std::string> here(file.tensors.begin(), file.tensors.end());
    for (const std::string& name : file.tensors) {
      const auto alias = layout_.form.aliases.find(name);
      if (alias != layout_.form.aliases.end() && here.contains(alias->second))
        file.shared.emplace(name, alias->second);
    }
  }

  void find_index(bool is_torch) {
    stdfs::path index = base_.path;
    std::error_code ignored;
    if (!base_.path.filename().string().ends_with(".index.json")) {
      const std::string whole = is_torch ? "pytorch_model.bin" : "model.safetensors";
      index = base_.files.front().parent_path() / (whole + ".index.json");
      if (base_.files.front().filename() == whole || !stdfs::exists(index, ignored)) return;
    }
    layout_.index_name = index.filename().string();
    const Json document = read_json_file(index);
    const Json* metadata = document.find("metadata");
    if (metadata != nullptr && metadata->as_object() != nullptr)
      layout_.index_metadata = *metadata->as_object();
  }

  const Checkpoint& base_;
  Layout& layout_;
  std::set<std::string> placed_;
};

}  // namespace

void lay_out_files(const Checkpoint& base, bool as_safetensors, Layout& layout) {
  FileLayout(base, layout).run(as_safetensors);
}

}  // namespace lora::merging
