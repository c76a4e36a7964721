// JSON that repeats a key: what Python's json module makes of it, with the repetition reported.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lora/format/json.h"

namespace lora {

struct LenientJson {
  Json value;  ///< of a key given twice the last value counts
  /// Dotted paths of the keys given more than once ("rank_pattern.q_proj"), in file order.
  std::vector<std::string> repeated_keys;
  std::vector<Json> earlier_values;  ///< for each of them, the value that was replaced
};

/// As parse_json with the limits of read_json_file, except that repeated keys are no error.
LenientJson parse_json_lenient(std::string_view text, std::string_view context);

}  // namespace lora
