// The one JSON document of a --json run (docs/json.md).
#pragma once

#include <optional>
#include <string>

#include "cli/verb.h"
#include "lora/base/error.h"
#include "lora/format/json.h"

namespace lora::cli {

Json to_json(const Finding& finding);

/// `{"schema", "tool", "result", "findings", "error"}`; `error` null when there was none.
std::string envelope(const std::string& verb, const Outcome& outcome, const Error* error);

}  // namespace lora::cli
