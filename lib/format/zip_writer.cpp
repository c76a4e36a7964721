#include "format/zip_writer.h"

#include <algorithm>
#include <utility>

#include "format/crc32.h"
#include "format/in_quotes.h"
#include "format/zip_format.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::uint16_t kPlainVersion = 20;
constexpr std::uint16_t kZip64Version = 45;
constexpr std::uint16_t kPaddingExtraId = 0x4246;  // "FB"
constexpr std::uint16_t kFlags = zip::kFlagDescriptor | zip::kFlagUtf8;
constexpr std::size_t kExtraHeader = 4;

class ByteBuilder {
 public:
  ByteBuilder& u16(std::uint64_t value) { return integer(value, 2); }
  ByteBuilder& u32(std::uint64_t value) { return integer(value, 4); }
  ByteBuilder& u64(std::uint64_t value) { return integer(value, 8); }
  ByteBuilder& text(std::string_view value) {
    const auto bytes = std::as_bytes(std::span(value));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  ByteBuilder& zeros(std::size_t count) {
    bytes_.insert(bytes_.end(), count, std::byte{0});
    return *this;
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  ByteBuilder& integer(std::uint64_t value, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i)
      bytes_.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

bool is_wide(std::uint64_t value) { return value >= zip::kSaturated32; }
std::uint64_t narrowed(std::uint64_t value) { return is_wide(value) ? zip::kSaturated32 : value; }

}  // namespace

std::vector<std::byte> zip_local_header(const ZipRecord& record, std::uint64_t alignment) {
  const bool wide = is_wide(record.size);
  const std::size_t zip64 = wide ? kExtraHeader + 16 : 0;
  const std::uint64_t unaligned = record.offset + zip::kLocalSize + record.name.size() + zip64;
  std::uint64_t padding = (alignment - unaligned % alignment) % alignment;
  if (padding != 0 && padding < kExtraHeader) padding += alignment;
  ByteBuilder out;
  out.u32(zip::kLocalSignature).u16(wide ? kZip64Version : kPlainVersion).u16(kFlags);
  out.u16(zip::kStored).u32(0).u32(0);
  const std::uint32_t deferred = wide ? zip::kSaturated32 : 0;
  out.u32(deferred).u32(deferred).u16(record.name.size()).u16(zip64 + padding).text(record.name);
  if (wide) out.u16(zip::kZip64ExtraId).u16(16).u64(record.size).u64(record.size);
  if (padding != 0)
    out.u16(kPaddingExtraId).u16(padding - kExtraHeader).zeros(padding - kExtraHeader);
  return out.take();
}

std::vector<std::byte> zip_descriptor(const ZipRecord& record) {
  ByteBuilder out;
  out.u32(zip::kDescriptorSignature).u32(record.crc);
  if (is_wide(record.size)) {
    out.u64(record.size).u64(record.size);
  } else {
    out.u32(record.size).u32(record.size);
  }
  return out.take();
}

std::vector<std::byte> zip_central_header(const ZipRecord& record) {
  const bool wide_size = is_wide(record.size);
  const bool wide_offset = is_wide(record.offset);
  const std::uint16_t fields = (wide_size ? 16 : 0) + (wide_offset ? 8 : 0);
  const std::uint16_t version = fields != 0 ? kZip64Version : kPlainVersion;
  ByteBuilder out;
  out.u32(zip::kCentralSignature).u16(version).u16(version).u16(kFlags).u16(zip::kStored).u32(0);
  out.u32(record.crc).u32(narrowed(record.size)).u32(narrowed(record.size));
  out.u16(record.name.size()).u16(fields != 0 ? kExtraHeader + fields : 0);
  out.u16(0).u16(0).u16(0).u32(0).u32(narrowed(record.offset)).text(record.name);
  if (fields != 0) out.u16(zip::kZip64ExtraId).u16(fields);
  if (wide_size) out.u64(record.size).u64(record.size);
  if (wide_offset) out.u64(record.offset);
  return out.take();
}

std::vector<std::byte> zip_end_records(std::uint64_t entries, std::uint64_t directory_offset,
                                       std::uint64_t directory_size) {
  const bool many = entries >= zip::kSaturated16;
  ByteBuilder out;
  if (many || is_wide(directory_offset) || is_wide(directory_size)) {
    out.u32(zip::kEnd64Signature).u64(zip::kEnd64Size - 12).u16(kZip64Version).u16(kZip64Version);
    out.u32(0).u32(0).u64(entries).u64(entries).u64(directory_size).u64(directory_offset);
    out.u32(zip::kLocator64Signature).u32(0).u64(directory_offset + directory_size).u32(1);
  }
  const std::uint64_t shown = many ? zip::kSaturated16 : entries;
  out.u32(zip::kEndSignature).u16(0).u16(0).u16(shown).u16(shown);
  out.u32(narrowed(directory_size)).u32(narrowed(directory_offset)).u16(0);
  return out.take();
}

ZipWriter::ZipWriter(WritableFile& file, std::uint64_t alignment)
    : file_(file), alignment_(alignment) {}

void ZipWriter::put(std::span<const std::byte> bytes) {
  file_.write(bytes);
  position_ += bytes.size();
}

void ZipWriter::begin(std::string_view name, std::uint64_t size) {
  records_.push_back({std::string(name), size, position_, 0});
  given_ = 0;
  put(zip_local_header(records_.back(), alignment_));
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  // In pieces that stay in the cache between the checksum and the write.
  constexpr std::size_t kPiece = std::size_t{1} << 18;
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(kPiece, bytes.size()));
    records_.back().crc = crc32(piece, records_.back().crc);
    put(piece);
    given_ += piece.size();
    bytes = bytes.subspan(piece.size());
  }
}

void ZipWriter::end() {
  const ZipRecord& record = records_.back();
  if (given_ != record.size)
    throw Error(ErrorKind::internal, "zip entry " + in_quotes(record.name) + " was given " +
                                         std::to_string(given_) + " bytes, expected " +
                                         std::to_string(record.size));
  put(zip_descriptor(record));
}

void ZipWriter::add(std::string_view name, std::string_view content) {
  begin(name, content.size());
  write(std::as_bytes(std::span(content)));
  end();
}

void ZipWriter::finish() {
  const std::uint64_t start = position_;
  for (const ZipRecord& record : records_) put(zip_central_header(record));
  put(zip_end_records(records_.size(), start, position_ - start));
}

}  // namespace lora
