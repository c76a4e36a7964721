// Writing zip archives of stored entries, front to back, with aligned payloads.
//
// The layout is the one torch writes: sizes and CRC in a data descriptor after each payload, so
// that a payload is read once; padding in an extra field "FB"; the DOS time of 0. Zip64 fields
// appear only where a value needs them. The same entries always give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/file_system.h"

namespace lora {

/// What the headers of one entry say.
struct ZipRecord {
  std::string name;
  std::uint64_t size = 0;
  std::uint64_t offset = 0;  ///< of the local header
  std::uint32_t crc = 0;
};

class ZipWriter {
 public:
  /// `alignment` of every payload, a power of two; `file` must be at its start.
  ZipWriter(WritableFile& file, std::uint64_t alignment);

  /// Writes one entry: begin(), write() until `size` bytes are given, end(). Throws Error(internal)
  /// when another number of bytes was given.
  void begin(std::string_view name, std::uint64_t size);
  void write(std::span<const std::byte> bytes);
  void end();
  /// All three for content at hand.
  void add(std::string_view name, std::string_view content);

  /// Writes the directory; nothing may follow.
  void finish();

 private:
  void put(std::span<const std::byte> bytes);

  WritableFile& file_;
  std::uint64_t alignment_;
  std::uint64_t position_ = 0;
  std::uint64_t given_ = 0;
  std::vector<ZipRecord> records_;
};

/// The parts of an archive, each as bytes. A size or offset of 0xFFFFFFFF and more, or 0xFFFF and
/// more entries, brings in the zip64 fields.
std::vector<std::byte> zip_local_header(const ZipRecord& record, std::uint64_t alignment);
std::vector<std::byte> zip_descriptor(const ZipRecord& record);
std::vector<std::byte> zip_central_header(const ZipRecord& record);
std::vector<std::byte> zip_end_records(std::uint64_t entries, std::uint64_t directory_offset,
                                       std::uint64_t directory_size);

}  // namespace lora
