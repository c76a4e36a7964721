// What every fuzz target shares: the claims it makes and the input as a file.
//
// A target is one function. Linked with libFuzzer it is searched for inputs that break its claims;
// linked with replay_main.cpp it runs over the inputs kept in tests/corrupt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace lora::fuzz {

/// Ends the process the way libFuzzer and ctest understand when a claim does not hold.
inline void require(bool holds, const char* claim, const std::string& detail = {}) {
  if (holds) return;
  std::fprintf(stderr, "broken claim: %s %s\n", claim, detail.c_str());
  std::abort();
}

/// True when `body` returned, false when it threw a lora::Error as the house wants them: one line,
/// not empty, not about a bug. Any other exception passes and ends the process.
template <typename Body>
bool accepts(Body&& body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    require(!error.message().empty(), "an error says something");
    require(error.message().find('\n') == std::string::npos, "an error is one line",
            error.message());
    require(error.kind() != ErrorKind::internal, "bad input is no internal error", error.message());
    return false;
  }
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// A copy of exactly this size, so that a sanitizer sees every read beyond it.
inline std::vector<std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  return {bytes.begin(), bytes.end()};
}

/// A folder of the process's own for parsers that take a path; removed when the process ends.
class InputFolder {
 public:
  InputFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lora-fuzz-XXXXXX").string();
    require(::mkdtemp(pattern.data()) != nullptr, "a temporary folder can be made");
    path_ = pattern;
  }
  ~InputFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  InputFolder(const InputFolder&) = delete;
  InputFolder& operator=(const InputFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  /// Writes (or replaces) a file and returns its path.
  std::filesystem::path put(std::string_view name, std::string_view content) const {
    const auto file = path_ / name;
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    out.close();
    require(out.good(), "the input can be written", file.string());
    return file;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace lora::fuzz
