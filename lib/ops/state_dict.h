// The LoRA part of a state dict, told apart from everything else in it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/config.h"
#include "lora/base/tensor.h"

namespace lora {

struct AdapterPart {
  TensorMap tensors;                  ///< by clean peft_key
  std::size_t copies = 0;             ///< second names of tensors with equal bytes
  std::vector<std::string> left_out;  ///< names as in the source
  std::uint64_t left_out_bytes = 0;
  std::vector<std::string> unwrapped;     ///< distinct wrapper components, sorted
  std::vector<std::string> module_paths;  ///< every module the names speak of, LoRA or not, sorted
};

/// Reads a .safetensors, .pth, .pt or .bin file (or a directory holding one, sharded or not).
TensorMap read_state_dict(const std::filesystem::path& source);

/// Names of the adapters that a state dict holds, sorted. Keys without one, as files have them,
/// count as "default".
std::vector<std::string> adapter_names(const TensorMap& state_dict);

/// Keeps LoRA tensors, copies made for modules_to_save, and the biases and saved modules that
/// `config` (may be null) declares; of several adapters only the one called `name`. Throws
/// Error(usage) when there are several and no name, or none of that name, listing them;
/// Error(malformed) when two names mean one peft_key with different values.
AdapterPart adapter_part(const TensorMap& state_dict, const AdapterConfig* config,
                         const std::filesystem::path& source,
                         const std::optional<std::string>& name = std::nullopt);

}  // namespace lora
