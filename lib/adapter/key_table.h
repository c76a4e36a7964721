// The tensors of an adapter file under their clean names.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "lora/adapter/adapter.h"
#include "lora/adapter/keys.h"

namespace lora {

/// One tensor: its name in the file and what that name says.
struct KeySource {
  std::string file_key;
  ParsedKey parsed;
};

/// By clean peft_key; has exactly the keys of Adapter::tensors.
using KeyTable = std::map<std::string, KeySource>;

/// Fills tensors, unclean_keys and what tells several adapters of the file apart, of which `wanted`
/// is taken (make_adapter). Clean names win over other spellings of the same key; every second name
/// is a problem unless it is PEFT's redundant copy with the same bytes.
KeyTable take_names(TensorMap tensors, const std::optional<std::string>& wanted, Adapter& adapter);

}  // namespace lora
