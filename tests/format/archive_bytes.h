// Builds zip archives and pickle streams byte by byte, right or wrong on purpose. Independent of
// the writers under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/allocation_budget.h"

namespace lora::testing {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// What reading a file of a mebibyte may allocate, afresh at each call.
inline AllocationBudget& plenty() {
  static thread_local AllocationBudget budget(0);
  return budget = AllocationBudget(std::uint64_t{1} << 20);
}

inline std::string little(std::uint64_t value, std::size_t width) {
  std::string bytes;
  for (std::size_t i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
  return bytes;
}

/// Bit-by-bit CRC-32.
inline std::uint32_t slow_crc32(std::string_view text) {
  std::uint32_t crc = ~0u;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

/// One entry; the optional fields make a header say something else than the truth.
struct EntrySpec {
  std::string name = {};
  std::string content = {};
  std::uint16_t flags = 0;
  std::uint16_t method = 0;
  std::optional<std::string> local_name = {};
  std::optional<std::uint32_t> local_size = {};
  std::optional<std::uint32_t> local_crc = {};
  std::optional<std::uint32_t> central_size = {};
  std::optional<std::uint32_t> central_packed = {};
  std::optional<std::uint32_t> central_offset = {};
  std::string central_extra = {};
  std::string descriptor = {};  ///< bytes after the payload
};

struct ArchiveSpec {
  std::vector<EntrySpec> entries = {};
  std::string after_entries = {};  ///< between the last record and the directory
  std::string after_directory =
      {};  ///< between the directory and the end record: the zip64 records
  std::optional<std::uint16_t> entry_count = {};
  std::optional<std::uint32_t> directory_offset = {};
  std::optional<std::uint32_t> directory_size = {};
};

inline std::string zip_of(const ArchiveSpec& spec) {
  std::string archive;
  std::string directory;
  for (const EntrySpec& entry : spec.entries) {
    const std::size_t offset = archive.size();
    const std::string local = entry.local_name.value_or(entry.name);
    const auto size = static_cast<std::uint32_t>(entry.content.size());
    const std::uint32_t crc = slow_crc32(entry.content);
    const std::string start = little(entry.flags, 2) + little(entry.method, 2) + little(0, 4);
    archive += "PK\x03\x04" + little(20, 2) + start + little(entry.local_crc.value_or(crc), 4) +
               little(entry.local_size.value_or(size), 4) +
               little(entry.local_size.value_or(size), 4) + little(local.size(), 2) + little(0, 2) +
               local + entry.content + entry.descriptor;
    directory += "PK\x01\x02" + little(20, 2) + little(20, 2) + start + little(crc, 4) +
                 little(entry.central_packed.value_or(entry.central_size.value_or(size)), 4) +
                 little(entry.central_size.value_or(size), 4) + little(entry.name.size(), 2) +
                 little(entry.central_extra.size(), 2) + little(0, 2) + little(0, 2) +
                 little(0, 2) + little(0, 4) +
                 little(entry.central_offset.value_or(static_cast<std::uint32_t>(offset)), 4) +
                 entry.name + entry.central_extra;
  }
  archive += spec.after_entries;
  const auto offset = static_cast<std::uint32_t>(archive.size());
  const auto count = spec.entry_count.value_or(static_cast<std::uint16_t>(spec.entries.size()));
  archive += directory + spec.after_directory + "PK\x05\x06" + little(0, 4) + little(count, 2) +
             little(count, 2) +
             little(spec.directory_size.value_or(static_cast<std::uint32_t>(directory.size())), 4) +
             little(spec.directory_offset.value_or(offset), 4) + little(0, 2);
  return archive;
}

/// Pickle fragments, protocol 2.
inline std::string p_text(std::string_view text) {
  return "X" + little(text.size(), 4) + std::string(text);
}
inline std::string p_int(std::int64_t value) {
  return "\x8a\x08" + little(static_cast<std::uint64_t>(value), 8);
}
inline std::string p_global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string p_tuple(const std::vector<std::string>& items) {
  std::string out = "(";
  for (const std::string& item : items) out += item;
  return out + "t";
}
inline std::string p_ints(const std::vector<std::int64_t>& values) {
  std::vector<std::string> items;
  for (const std::int64_t value : values) items.push_back(p_int(value));
  return p_tuple(items);
}
inline std::string p_call(const std::string& callee, const std::vector<std::string>& arguments) {
  return callee + p_tuple(arguments) + "R";
}
inline std::string p_storage(std::string_view type, std::string_view key, std::int64_t count) {
  return p_tuple({p_text("storage"), p_global("torch", type), p_text(key), p_text("cpu"),
                  p_int(count)}) +
         "Q";
}
inline std::string p_tensor(const std::string& storage, std::int64_t offset,
                            const std::vector<std::int64_t>& shape,
                            const std::vector<std::int64_t>& strides) {
  return p_call(p_global("torch._utils", "_rebuild_tensor_v2"),
                {storage, p_int(offset), p_ints(shape), p_ints(strides), "\x89", "N"});
}
inline std::string p_dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += p_text(key) + value;
  return out + "u";
}
inline std::string p_stream(const std::string& body) { return "\x80\x02" + body + "."; }

}  // namespace lora::testing
