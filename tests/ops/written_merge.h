// Merges written by `merge` on the sample of merged_sample.h, and on the kinds that PEFT wrote.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "adapter/kinds.h"
#include "lora/base/mapped_file.h"
#include "lora/ops/merge.h"
#include "ops/merged_sample.h"

namespace lora::testing {

namespace fs = std::filesystem;

inline MergeReport merge_kind(const fs::path& adapter, const fs::path& base, const fs::path& output,
                              MergeOptions options = {}) {
  const Checkpoint from = open_checkpoint(base.string());
  options.base = &from;
  options.adapters.push_back({open_adapter(adapter), 1});
  options.output = output;
  options.threads = 2;
  return merge(options);
}

inline VerifyReport verify_merge(const fs::path& adapter, const fs::path& base,
                                 const fs::path& merged) {
  const Checkpoint from = open_checkpoint(base.string());
  const Checkpoint to = open_checkpoint(merged.string());
  VerifyOptions options;
  options.adapter = adapter;
  options.base = &from;
  options.merged = &to;
  return lora::verify(options);
}

/// What verify says against a merge, notes left out.
inline std::string complaints(const VerifyReport& report) {
  std::string text;
  for (const Finding& finding : report.findings)
    if (finding.rule[2] == '7' && finding.severity != Severity::note)
      text += finding.rule + " " + finding.message + "\n";
  return text;
}

inline std::string text_of(const fs::path& path) {
  const auto file = MappedFile::open(path);
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

/// The toy of merged_sample.h as a folder of two shards with an index.
struct ShardedSample : MergeSample {
  fs::path base_folder = directory / "base", adapter_folder = directory / "adapter",
           output = directory / "out";

  explicit ShardedSample(DType wanted = DType::bf16, double update = 0.3)
      : MergeSample(wanted, update) {
    write_sample(adapter_folder, config, adapter);
    write_base();
  }

  void write_base() {
    fs::create_directories(base_folder);
    std::map<std::string, TensorMap> shards;
    JsonObject weight_map;
    for (const auto& [name, tensor] : base) {
      const std::string file = name.starts_with("norm") ? "model-00001-of-00002.safetensors"
                                                        : "model-00002-of-00002.safetensors";
      shards[file][name] = tensor;
      weight_map[name] = file;
    }
    for (const auto& [file, tensors] : shards) write(base_folder / file, tensors);
    const JsonObject index{{"metadata", JsonObject{{"total_size", 0}}},
                           {"weight_map", std::move(weight_map)}};
    write_file(base_folder / "model.safetensors.index.json", dump_json(index));
    write_file(
        base_folder / "config.json",
        "{\"model_type\": \"toy\",\n \"architectures\": [\"ToyModel\"],\"dtype\":\"bfloat16\"}");
    write_file(base_folder / "generation_config.json", "{ }");
  }

  MergeReport run(MergeOptions options = {}) {
    return merge_kind(adapter_folder, base_folder, output, std::move(options));
  }
  VerifyReport check() { return verify_merge(adapter_folder, base_folder, output); }
};

inline std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

template <typename Body>
Error failure_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  FAIL("no error");
  return Error(ErrorKind::internal, "");
}

}  // namespace lora::testing
