#include <system_error>

#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

namespace fs = std::filesystem;

void pickle_container(const Subject& subject, Report& report) {
  const fs::path directory = subject.adapter.directory();
  std::error_code ignored;
  if (subject.adapter.is_pickle) {
    report.add("weights are a pickle container (" +
               subject.adapter.weights_path.filename().string() +
               "); lora reads tensors only, Python loaders may run code");
  } else if (subject.adapter.weights_path.filename() == kAdapterWeightsName &&
             fs::is_regular_file(directory / kAdapterPickleName, ignored)) {
    report.add(
        std::string(kAdapterPickleName) + " lies beside " + kAdapterWeightsName +
            "; the latter was read, as PEFT does",
        {.tensor = {},
         .module = {},
         .hint = "remove " + (directory / kAdapterPickleName).string() + " when it is not needed",
         .severity = Severity::note});
  }
}

void adapter_empty(const Subject& subject, Report& report) {
  const Adapter& adapter = subject.adapter;
  if (adapter.tensors.empty()) {
    report.add("the adapter holds no tensors");
  } else if (adapter.modules.empty() && adapter.tokens.empty() && adapter.replacements.empty()) {
    report.add("none of the " + std::to_string(adapter.tensors.size()) +
               " tensors belongs to a complete LoRA layer");
  }
}

void zero_size(const Subject& subject, Report& report) {
  std::vector<std::string> empty;
  for (const auto& [key, tensor] : subject.adapter.tensors)
    if (tensor.numel() == 0) empty.push_back(key);
  if (empty.empty()) return;
  report.add(std::to_string(empty.size()) + " of " +
                 std::to_string(subject.adapter.tensors.size()) +
                 " tensors have no elements (parameters were not gathered before saving, as with "
                 "ZeRO-3): " +
                 report.list(empty),
             {.tensor = empty.front(), .module = {}, .hint = {}, .severity = {}});
}

}  // namespace

const std::vector<Rule>& file_rules() {
  static const std::vector<Rule> rules{
      {{"LV101", "file-corrupt", Severity::error, "every byte of headers and configuration",
        "The path is missing, damaged or not an adapter; nothing in it can be trusted.",
        "restore the file from where it came from"},
       nullptr},
      {{"LV102", "pickle-container", Severity::warning, "the container of the weights",
        "The weights are a pickle, which Python loaders may execute (a note when a pickle only "
        "lies "
        "beside the safetensors file).",
        "rewrite it as safetensors: lora save ADAPTER -o DIR"},
       pickle_container},
      {{"LV103", "adapter-empty", Severity::error, "the number of tensors and complete layers",
        "An empty or filtered state dict was saved; loading it changes nothing.",
        "save again from the live model or from a checkpoint with lora save"},
       adapter_empty},
      {{"LV104", "tensor-zero-size", Severity::error, "the shape of every tensor",
        "Sharded parameters were saved without gathering them.",
        "gather the parameters and save again, or run lora save on the consolidated checkpoint"},
       zero_size},
  };
  return rules;
}

}  // namespace lora::rules
