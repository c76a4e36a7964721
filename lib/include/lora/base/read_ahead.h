// Asking for pages of a mapped file before they are needed.
#pragma once

#include <cstddef>
#include <span>

namespace lora {

/// Tells the kernel to begin reading the pages that hold `bytes`, and returns at once. Harmless on
/// memory that is not of a file.
void read_ahead(std::span<const std::byte> bytes);

}  // namespace lora
