// Bases of the spaces that a few columns span.
#pragma once

#include <cstdint>
#include <string>

#include "ops/numbers/panels.h"

namespace lora::numbers {

/// Columns of 1 and -1: the sketch that a search for singular vectors begins with. The same name
/// gives the same ones.
PanelMatrix random_signs(std::int64_t rows, std::int64_t columns, const std::string& name);

/// Orthonormal columns, to the precision of f32, that span those of `values`; zero where a column
/// lies in the span of earlier ones.
PanelMatrix orthonormal(const PanelMatrix& values);

}  // namespace lora::numbers
