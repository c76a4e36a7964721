// What a path is that should be a file.
#pragma once

#include <filesystem>
#include <string>

namespace lora {

/// "a directory", "a named pipe", "a device", "a socket", "a link that leads nowhere", "a link that
/// leads back to itself"; empty for a regular file and where nothing is. Opens nothing.
std::string irregular_kind(const std::filesystem::path& path);

}  // namespace lora
