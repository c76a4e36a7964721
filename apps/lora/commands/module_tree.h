// A model's module tree as print(model) shows it, with LoRA layers marked.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/base/module.h"

namespace lora::cli {

/// One string a line. Modules show what adapters do to them: [lora], [lora_embedding], [tokens],
/// [saved], with the adapter's number where there are several ("[lora 2]"); runs of equal children
/// of a ModuleList are folded into one "(0-29): 30 x Class", as PyTorch does.
std::vector<std::string> module_tree(const ModuleList& modules,
                                     const std::vector<const Adapter*>& adapters);

}  // namespace lora::cli
