// README.md as PEFT's save_pretrained adds it: front matter that model hubs read, and sections.
#pragma once

#include <string>

#include "lora/adapter/adapter.h"

namespace lora {

/// The front matter has PEFT's members (base_model, library_name, pipeline_tag for CAUSAL_LM, tags)
/// in its order; the sections stand under PEFT's headings in its order and hold facts of the
/// adapter, "Not recorded" where a file cannot know, and end with the PEFT version whose layout the
/// files follow. `is_transformers`: the base is a transformers model (a task_type says so too).
std::string model_card(const Adapter& adapter, bool is_transformers);

}  // namespace lora
