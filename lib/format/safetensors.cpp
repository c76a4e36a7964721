#include "lora/format/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "format/safetensors_header.h"

namespace lora {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;

std::uint64_t read_u64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    value |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

// What commonly lies under the wrong name.
std::string hint_for(std::string_view start) {
  if (start.starts_with("version https://git-lfs"))
    return "this is a Git LFS pointer; fetch the file itself with git lfs pull";
  if (start.starts_with("PK\x03\x04")) return "this looks like a torch.save file (.pth, .pt, .bin)";
  if (start.starts_with("GGUF")) return "this looks like a GGUF file";
  if (start.starts_with("<")) return "this looks like a web page; download the file again";
  return "";
}

std::string_view header_text(std::span<const std::byte> bytes, const SafetensorsFile& file) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (bytes.size() < kLengthBytes)
    throw malformed_safetensors(
        file, "found " + std::to_string(bytes.size()) + " bytes, expected at least 8");
  const std::uint64_t length = read_u64(bytes);
  if (length > kMaxHeader)
    throw malformed_safetensors(file, "found a header length of " + std::to_string(length) +
                                          " bytes, expected at most " + std::to_string(kMaxHeader))
        .with_hint(hint_for(text));
  if (length > bytes.size() - kLengthBytes)
    throw malformed_safetensors(file, "found " + std::to_string(bytes.size() - kLengthBytes) +
                                          " bytes after the header length, expected a header of " +
                                          std::to_string(length));
  return text.substr(kLengthBytes, length);
}

// In offset order the tensors must tile the data section without hole or overlap.
void check_tiling(const std::vector<SafetensorsEntry>& entries, std::uint64_t data_size,
                  const SafetensorsFile& file) {
  std::uint64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::string& name = entry.tensor->first;
    if (entry.begin != expected)
      throw malformed_safetensors(
          file, name,
          std::string(entry.begin > expected ? "hole before its data" : "overlap with other data") +
              ": found it to begin at " + std::to_string(entry.begin) + ", expected " +
              std::to_string(expected));
    if (entry.end > data_size)
      throw malformed_safetensors(file, name,
                                  "found " + std::to_string(data_size) +
                                      " bytes of tensor data, expected at least " +
                                      std::to_string(entry.end) + " (the file is cut short)");
    expected = entry.end;
  }
  if (expected != data_size)
    throw malformed_safetensors(file, "found " + std::to_string(data_size) +
                                          " bytes of tensor data, expected " +
                                          std::to_string(expected) + " (trailing bytes)");
}

}  // namespace

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes,
                                  std::shared_ptr<const void> keep_alive,
                                  const std::filesystem::path& path) {
  SafetensorsFile file;
  file.path = path;
  const std::string_view header = header_text(bytes, file);
  file.header_bytes = kLengthBytes + header.size();
  std::vector<SafetensorsEntry> entries = parse_safetensors_header(header, bytes.size(), file);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const auto data = bytes.subspan(file.header_bytes);
  check_tiling(entries, data.size(), file);
  file.in_order.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) {
    entry.tensor->second.bytes = data.subspan(entry.begin, entry.end - entry.begin);
    entry.tensor->second.keep_alive = keep_alive;
    file.in_order.push_back(entry.tensor->first);
  }
  return file;
}

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  const auto mapping = MappedFile::open(path);
  return parse_safetensors(mapping->bytes(), mapping, path);
}

}  // namespace lora
