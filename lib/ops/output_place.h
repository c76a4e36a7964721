// Where a result may be written: apart from what it is read from, and where it fits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lora {

/// Throws Error(usage) when `output` is `input` or a folder around it: replacing it would take away
/// what is read. `doing` is "merge into" or the like, `what` names the input ("the base").
void require_apart(const std::filesystem::path& output, const std::filesystem::path& input,
                   const std::string& doing, const std::string& what);

/// Throws Error(output) when the disk of `output` has fewer than `bytes` free.
void require_space(const std::filesystem::path& output, std::uint64_t bytes);

}  // namespace lora
