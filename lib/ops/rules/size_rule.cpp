#include <algorithm>

#include "lora/base/error.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "ops/rules/folder_rules.h"

namespace lora::rules {
namespace {

// A tensor's entry takes a few hundred bytes; its name may be long.
constexpr std::uint64_t kHeaderPerTensor = 4096;
constexpr std::uint64_t kHeaderFree = std::uint64_t{64} << 10;
// A pickle's and an archive's own bytes a tensor.
constexpr std::uint64_t kPicklePerTensor = 4096;
constexpr std::uint64_t kPickleFree = std::uint64_t{256} << 10;

Report::About about(const Folder::Entry& entry) {
  return {.tensor = {}, .module = {}, .hint = {}, .severity = {}, .file = entry.path.string()};
}

std::uint64_t bytes_of(const TensorMap& tensors) {
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.bytes.size();
  return bytes;
}

void check_safetensors(const Folder::Entry& entry, Report& report) {
  const SafetensorsFile file = read_safetensors(entry.path);
  const std::uint64_t plausible = kHeaderFree + kHeaderPerTensor * file.tensors.size();
  if (file.header_bytes <= plausible) return;
  std::uint64_t metadata = 0;
  for (const auto& [key, value] : file.metadata) metadata += key.size() + value.size();
  report.add(entry.relative.string() + " has a header of " + std::to_string(file.header_bytes) +
                 " bytes for " + std::to_string(file.tensors.size()) + " tensors (" +
                 std::to_string(metadata) + " of them metadata), expected at most " +
                 std::to_string(plausible),
             about(entry));
}

void check_torch_file(const Folder::Entry& entry, Report& report) {
  const TorchFile file = read_torch_file(entry.path);
  TensorMap tensors;
  for (const TorchEntry& tensor : file.entries) tensors[tensor.name] = tensor.tensor;
  const std::uint64_t used = bytes_of(tensors);
  const std::uint64_t plausible = used + used / 4 + kPickleFree + kPicklePerTensor * tensors.size();
  if (entry.bytes <= plausible) return;
  report.add(entry.relative.string() + " has " + std::to_string(entry.bytes) + " bytes, its " +
                 std::to_string(tensors.size()) + " tensors take " + std::to_string(used),
             about(entry));
}

}  // namespace

void check_sizes(const Folder& folder, Report& report) {
  for (const Folder::Entry& entry : folder.entries) {
    const std::string name = entry.relative.filename().string();
    if (!entry.is_file || !(folder.is_single_file || name.starts_with("adapter_model"))) continue;
    try {
      if (entry.path.extension() == ".safetensors") {
        check_safetensors(entry, report);
      } else if (looks_like_torch_file(entry.path)) {
        check_torch_file(entry, report);
      }
    } catch (const Error&) {
      continue;  // a damaged file is LV101's
    }
  }
}

}  // namespace lora::rules
