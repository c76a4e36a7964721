// The questions asked of an adapter before it is put onto a model.
#pragma once

#include "engine/adapter_binding.h"

namespace lora::engine {

LoraSite* find_site(const Sites& sites, std::string_view module_path);
Parameter* find_parameter(const Sites& sites, std::string_view base_name);

/// Throws for everything that bind_adapters documents; returns when all adapters fit.
void check_adapters(const ModelOptions& options, const Sites& sites, Gradients gradients);

}  // namespace lora::engine
