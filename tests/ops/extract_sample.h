// A base of the kinds, and the same model with some of its tensors changed.
#pragma once

#include <functional>
#include <string>

#include "lora/ops/extract.h"
#include "lora/ops/verify.h"
#include "ops/written_merge.h"

namespace lora::testing {

struct TunedPair {
  TempDir directory;
  fs::path base, tuned = directory / "tuned", output = directory / "adapter";
  TensorMap tensors;

  explicit TunedPair(const std::string& kind) : base(golden("kinds") / "bases" / kind) {
    tensors = open_checkpoint(base.string()).tensors;
  }

  /// Adds normal values to every tensor whose name `is_chosen` takes.
  void change(const std::function<bool(const std::string&)>& is_chosen, double scale = 0.1) {
    for (auto& [name, tensor] : tensors) {
      if (!is_chosen(name)) continue;
      std::vector<float> values = tensor.to_f32();
      const std::vector<float> added = normal_tensor(name, tensor.shape, scale, 7).to_f32();
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += added[i];
      tensor = Tensor::from_f32(tensor.shape, values).cast(tensor.dtype);
    }
  }

  void write_tuned() const {
    fs::create_directories(tuned);
    MergeSample::write(tuned / "model.safetensors", tensors);
    fs::copy_file(base / "config.json", tuned / "config.json",
                  fs::copy_options::overwrite_existing);
  }

  ExtractReport run(ExtractOptions options) const {
    write_tuned();
    const Checkpoint from = open_checkpoint(base.string());
    const Checkpoint to = open_checkpoint(tuned.string());
    options.base = &from;
    options.tuned = &to;
    options.output = output;
    options.threads = 2;
    return extract(options);
  }
  ExtractReport run(std::int64_t rank) const {
    ExtractOptions options;
    options.rank = rank;
    return run(options);
  }

  /// What base and adapter merge into.
  TensorMap applied() const {
    merge_kind(output, base, directory / "merged");
    const Checkpoint merged = open_checkpoint((directory / "merged").string());
    return merged.tensors;
  }
};

}  // namespace lora::testing
