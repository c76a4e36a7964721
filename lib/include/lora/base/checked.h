// Arithmetic on sizes that come from files.
//
// A size read from a file is hostile until proven otherwise. These helpers never wrap: they return
// nullopt on overflow, so that the caller decides which file and tensor to name in its error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace lora {

/// a + b, or nullopt when the sum does not fit in 64 bits.
std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b);

/// a * b, or nullopt when the product does not fit in 64 bits.
std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b);

/// Product of the extents, left to right, each step checked; 1 for a scalar (empty shape).
/// Overflow is reported even if a later extent is 0, as the reference safetensors reader does.
/// Negative extents give nullopt.
std::optional<std::uint64_t> checked_numel(std::span<const std::int64_t> shape);

}  // namespace lora
