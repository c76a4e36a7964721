// How much more memory this process may take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace lora::engine {

/// Bytes that the process may still take before the machine or one of its control groups (v1 and
/// v2) stops it, whichever is less; memory that the kernel gives back on demand, such as cached
/// files, counts as free. nullopt where nothing says. `root` stands for "/" in tests.
std::optional<std::int64_t> available_memory(const std::filesystem::path& root = "/");

/// Bytes that the process may still allocate or map under `ulimit -v`; nullopt without a limit.
std::optional<std::int64_t> available_addresses();

}  // namespace lora::engine
