// How differences of outputs are told: one line of text, one JSON object.
#pragma once

#include <string>

#include "lora/format/json.h"
#include "lora/ops/output_difference.h"

namespace lora::cli {

std::string difference_text(const OutputDifference& difference);
JsonObject difference_json(const OutputDifference& difference);

}  // namespace lora::cli
