// Order of dotted names in which "layers.2" comes before "layers.10".
#pragma once

#include <string_view>

namespace lora {

/// Strict weak order: dots separate names and come before every other character, runs of digits
/// compare by value. Names that differ only in leading zeros fall back to byte order.
bool natural_less(std::string_view a, std::string_view b);

/// True when the two names are equal once every run of digits is taken out.
bool differ_only_in_numbers(std::string_view a, std::string_view b);

}  // namespace lora
