// Unicode's normal forms and lower case, as the tokenizers package computes them.
#pragma once

#include <string>
#include <string_view>

#include "text/normalizer.h"

namespace lora::text {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// Characters newer than the package's own tables stay as they are (inert_ranges).
std::string normal_form(std::string text, NormalForm form);

std::string lower_case(std::string_view text);

void apply_form(NormalText& normal, NormalForm form);
void apply_lower_case(NormalText& normal);

}  // namespace lora::text
