// CRC-32 as zip files use it (reflected polynomial 0xEDB88320, initial value and final xor ~0).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lora {

/// CRC of `bytes` appended to data whose CRC is `crc`; 0 is the CRC of no data.
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace lora
