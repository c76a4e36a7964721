// The kinds of pre-tokenizers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/component.h"
#include "text/pre_tokenizer.h"

namespace lora::text {

/// Appends what the component does, which is several steps for some. `context` names the file.
/// Throws Error(unsupported | malformed).
void append_pre_token_steps(const Component& part, const std::string& context,
                            std::vector<std::unique_ptr<PreTokenStep>>& steps);

/// Whether a step does nothing but write bytes as characters (the last one of ByteLevel).
bool is_byte_mapping(const PreTokenStep& step);

}  // namespace lora::text
