// The kinds of decoders.
#pragma once

#include <memory>
#include <string>

#include "text/component.h"
#include "text/decoder.h"

namespace lora::text {

/// Throws Error(unsupported | malformed); `context` names the file.
std::unique_ptr<DecoderStep> make_decoder_step(const Component& part, const std::string& context);

/// What a tokenizer without a decoder does: a space between two tokens.
std::unique_ptr<DecoderStep> make_joining_decoder();

}  // namespace lora::text
