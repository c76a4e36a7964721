// Normalizers that look at one character at a time.
#pragma once

#include <memory>

#include "text/component.h"
#include "text/normalizer.h"

namespace lora::text {

/// Control characters, white space, Chinese characters, accents, case.
std::unique_ptr<NormalizerStep> make_bert_normalizer(const Component& part);
/// White space at the ends.
std::unique_ptr<NormalizerStep> make_strip(const Component& part);
std::unique_ptr<NormalizerStep> make_strip_accents();
/// The characters that SentencePiece's rule `nmt` drops or takes for spaces.
std::unique_ptr<NormalizerStep> make_nmt();

}  // namespace lora::text
