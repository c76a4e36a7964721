// The model configurations that init-base carries with it.
#pragma once

#include <string>
#include <string_view>

namespace lora {

/// config.json of a preset other than mlp; empty for a name that is none. Small models that
/// transformers loads, sized so that a training step takes milliseconds.
std::string preset_config(std::string_view name);

}  // namespace lora
