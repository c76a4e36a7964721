// The hash of the tables that are looked into for every piece of a text.
#pragma once

#include <cstdint>

namespace lora::text {

inline std::uint64_t mixed(std::uint64_t value) {
  value *= 0x9E3779B97F4A7C15ULL;
  return value ^ (value >> 29);
}

}  // namespace lora::text
