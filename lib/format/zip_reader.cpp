#include "format/zip_reader.h"

#include <algorithm>
#include <optional>

#include "format/byte_cursor.h"
#include "format/crc32.h"
#include "format/in_quotes.h"
#include "format/zip_format.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

using Bytes = std::span<const std::byte>;

Error malformed(const std::string& what) {
  return Error(ErrorKind::malformed, "zip archive " + what);
}

Error unsupported(const std::string& what) {
  return Error(ErrorKind::unsupported, "zip archive " + what)
      .with_hint("write the file again with torch.save");
}

/// What the end records say about the directory.
struct Directory {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t entries = 0;
};

std::size_t find_end_record(Bytes archive) {
  constexpr std::size_t kLongestComment = 0xFFFF;
  if (archive.size() >= zip::kEndSize) {
    const std::size_t last = archive.size() - zip::kEndSize;
    for (std::size_t back = 0; back <= std::min(last, kLongestComment); ++back) {
      ByteCursor cursor(archive.subspan(last - back));
      if (cursor.u32() != zip::kEndSignature) continue;
      cursor.take(zip::kEndSize - 6);
      if (cursor.u16() == back) return last - back;
    }
  }
  throw malformed("has no end record: the file is cut short or is not a zip file");
}

/// Reads the zip64 end record in front of the end record at `end`; nullopt when there is none.
std::optional<Directory> read_end64(Bytes archive, std::size_t end, std::size_t& end64) {
  if (end < zip::kLocator64Size) return std::nullopt;
  ByteCursor locator(archive.subspan(end - zip::kLocator64Size));
  if (locator.u32() != zip::kLocator64Signature) return std::nullopt;
  const std::uint32_t disk = locator.u32();
  const std::uint64_t offset = locator.u64();
  if (disk != 0 || locator.u32() > 1) throw unsupported("is split over several files");
  if (offset > end - zip::kLocator64Size)
    throw malformed("has a zip64 end record beyond the end of the file");
  ByteCursor cursor(archive.subspan(offset, end - zip::kLocator64Size - offset));
  const bool is_record = cursor.u32() == zip::kEnd64Signature;
  const std::uint64_t length = cursor.u64();
  cursor.take(4);
  const std::uint32_t this_disk = cursor.u32();
  const std::uint32_t directory_disk = cursor.u32();
  const std::uint64_t here = cursor.u64();
  Directory directory;
  directory.entries = cursor.u64();
  directory.size = cursor.u64();
  directory.offset = cursor.u64();
  if (!is_record || !cursor.is_good() || length < zip::kEnd64Size - 12 ||
      length - (zip::kEnd64Size - 12) != cursor.remaining())
    throw malformed("has a broken zip64 end record");
  if (this_disk != 0 || directory_disk != 0 || here != directory.entries)
    throw unsupported("is split over several files");
  end64 = static_cast<std::size_t>(offset);
  return directory;
}

Directory find_directory(Bytes archive) {
  const std::size_t end = find_end_record(archive);
  ByteCursor cursor(archive.subspan(end + 4));
  const std::uint16_t this_disk = cursor.u16();
  const std::uint16_t directory_disk = cursor.u16();
  const std::uint16_t here = cursor.u16();
  const std::uint16_t entries = cursor.u16();
  const std::uint32_t size = cursor.u32();
  const std::uint32_t offset = cursor.u32();
  std::size_t directory_end = end;
  Directory directory{offset, size, entries};
  if (const auto wide = read_end64(archive, end, directory_end)) {
    const bool agrees = (entries == zip::kSaturated16 || entries == wide->entries) &&
                        (size == zip::kSaturated32 || size == wide->size) &&
                        (offset == zip::kSaturated32 || offset == wide->offset);
    if (!agrees) throw malformed("has an end record and a zip64 end record that disagree");
    directory = *wide;
  } else if ((this_disk != 0 && this_disk != zip::kSaturated16) ||
             (directory_disk != 0 && directory_disk != zip::kSaturated16) || here != entries) {
    throw unsupported("is split over several files");
  }
  const auto claimed_end = checked_add(directory.offset, directory.size);
  if (!claimed_end || *claimed_end != directory_end)
    throw malformed("has a directory that does not end where its end record starts");
  if (directory.entries > directory.size / zip::kCentralSize)
    throw malformed("claims " + std::to_string(directory.entries) + " entries in a directory of " +
                    std::to_string(directory.size) + " bytes");
  return directory;
}

/// One line of the directory.
struct Central {
  std::string_view name;
  std::uint16_t flags = 0;
  std::uint16_t method = 0;
  std::uint32_t crc = 0;
  std::uint64_t packed = 0;
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
};

/// Replaces saturated fields by the values of the zip64 extra field, which lists only those.
void widen_sizes(Bytes extra, std::string_view name, std::uint64_t& size, std::uint64_t& packed,
                 std::uint64_t* offset) {
  const bool needs_size = size == zip::kSaturated32;
  const bool needs_packed = packed == zip::kSaturated32;
  const bool needs_offset = offset != nullptr && *offset == zip::kSaturated32;
  if (!needs_size && !needs_packed && !needs_offset) return;
  ByteCursor fields(extra);
  while (fields.remaining() >= 4) {
    const std::uint16_t id = fields.u16();
    const std::uint16_t length = fields.u16();
    ByteCursor field(fields.take(length));
    if (!fields.is_good()) break;
    if (id != zip::kZip64ExtraId) continue;
    if (needs_size) size = field.u64();
    if (needs_packed) packed = field.u64();
    if (needs_offset) *offset = field.u64();
    if (!field.is_good()) break;
    return;
  }
  throw malformed("entry " + in_quotes(name) + " lacks its zip64 sizes");
}

Central read_central(ByteCursor& cursor) {
  Central entry;
  const bool is_entry = cursor.u32() == zip::kCentralSignature;
  cursor.take(4);
  entry.flags = cursor.u16();
  entry.method = cursor.u16();
  cursor.take(4);
  entry.crc = cursor.u32();
  entry.packed = cursor.u32();
  entry.size = cursor.u32();
  const std::uint16_t name_length = cursor.u16();
  const std::uint16_t extra_length = cursor.u16();
  const std::uint16_t comment_length = cursor.u16();
  const std::uint16_t disk = cursor.u16();
  cursor.take(6);
  entry.offset = cursor.u32();
  entry.name = cursor.text(name_length);
  const Bytes extra = cursor.take(extra_length);
  cursor.take(comment_length);
  if (!is_entry || !cursor.is_good()) throw malformed("has a broken directory");
  widen_sizes(extra, entry.name, entry.size, entry.packed, &entry.offset);
  const std::string label = "entry " + in_quotes(entry.name);
  if (disk != 0 && disk != zip::kSaturated16) throw unsupported("is split over several files");
  if ((entry.flags &
       (zip::kFlagEncrypted | zip::kFlagStrongEncryption | zip::kFlagMaskedHeaders)) != 0)
    throw unsupported(label + " is encrypted");
  if (entry.method != zip::kStored)
    throw unsupported(label + " is compressed (method " + std::to_string(entry.method) +
                      "), expected stored data");
  if (entry.packed != entry.size)
    throw malformed(label + " is stored but claims " + std::to_string(entry.packed) +
                    " bytes for a content of " + std::to_string(entry.size));
  return entry;
}

/// True when `bytes` starts with a descriptor of these values: with or without its signature, with
/// 32- or 64-bit sizes. `length` becomes its size in the file.
bool match_descriptor(Bytes bytes, const Central& entry, std::size_t& length) {
  for (const bool has_signature : {true, false})
    for (const bool is_wide : {false, true}) {
      ByteCursor cursor(bytes);
      if (has_signature && cursor.u32() != zip::kDescriptorSignature) continue;
      const std::uint32_t crc = cursor.u32();
      const std::uint64_t packed = is_wide ? cursor.u64() : cursor.u32();
      const std::uint64_t size = is_wide ? cursor.u64() : cursor.u32();
      if (!cursor.is_good() || crc != entry.crc || packed != entry.size || size != entry.size)
        continue;
      length = cursor.position();
      return true;
    }
  return false;
}

/// Checks the local record of `entry` inside the bytes before the directory; `end` becomes the
/// offset after it.
Bytes read_local(Bytes records, const Central& entry, std::uint64_t& end) {
  const std::string label = "entry " + in_quotes(entry.name);
  if (entry.offset > records.size()) throw malformed(label + " starts beyond the directory");
  ByteCursor cursor(records.subspan(static_cast<std::size_t>(entry.offset)));
  const bool is_record = cursor.u32() == zip::kLocalSignature;
  cursor.take(2);
  const std::uint16_t flags = cursor.u16();
  const std::uint16_t method = cursor.u16();
  cursor.take(4);
  const std::uint32_t crc = cursor.u32();
  std::uint64_t packed = cursor.u32();
  std::uint64_t size = cursor.u32();
  const std::uint16_t name_length = cursor.u16();
  const std::uint16_t extra_length = cursor.u16();
  const std::string_view name = cursor.text(name_length);
  const Bytes extra = cursor.take(extra_length);
  if (!is_record || !cursor.is_good())
    throw malformed(label + " has no local header at its offset");
  if (name != entry.name)
    throw malformed(label + " has the local name " + in_quotes(name) + ": the directory lies");
  if (flags != entry.flags || method != entry.method)
    throw malformed(label + " has local flags that differ from the directory's");
  const bool has_descriptor = (flags & zip::kFlagDescriptor) != 0;
  // With a descriptor the header may leave the three fields zero, and some writers fill them.
  if (!(has_descriptor && packed == 0 && size == 0 && crc == 0)) {
    const bool is_deferred = has_descriptor && crc == 0;
    widen_sizes(extra, entry.name, size, packed, nullptr);
    const bool sizes_agree =
        (size == entry.size && packed == entry.size) || (is_deferred && size == 0 && packed == 0);
    if (!sizes_agree || (crc != entry.crc && !is_deferred))
      throw malformed(label + " has a local header of " + std::to_string(size) +
                      " bytes where the directory says " + std::to_string(entry.size) +
                      ", or another CRC");
  }
  const Bytes payload = cursor.take(entry.size);
  if (!cursor.is_good())
    throw malformed(label + " claims " + std::to_string(entry.size) +
                    " bytes, which is more than the file holds");
  std::size_t descriptor = 0;
  if (has_descriptor &&
      !match_descriptor(records.subspan(static_cast<std::size_t>(entry.offset) + cursor.position()),
                        entry, descriptor))
    throw malformed(label + " has no data descriptor that agrees with the directory");
  end = entry.offset + cursor.position() + descriptor;
  return payload;
}

void check_overlaps(std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].first < ranges[i - 1].second) throw malformed("has records that overlap");
}

}  // namespace

ZipReader::ZipReader(Bytes archive, AllocationBudget& budget) {
  const Directory directory = find_directory(archive);
  constexpr std::uint64_t kEntryBytes = 192;  // three tables hold it while they are built
  if (!budget.spend(directory.entries * kEntryBytes))
    throw malformed("has " + std::to_string(directory.entries) +
                    " entries, more than a file of its size justifies");
  const Bytes records = archive.first(static_cast<std::size_t>(directory.offset));
  ByteCursor cursor(archive.subspan(static_cast<std::size_t>(directory.offset),
                                    static_cast<std::size_t>(directory.size)));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    const Central entry = read_central(cursor);
    if (!by_name_.emplace(entry.name, entries_.size()).second)
      throw malformed("has two entries named " + in_quotes(entry.name));
    std::uint64_t end = 0;
    const Bytes payload = read_local(records, entry, end);
    ranges.emplace_back(entry.offset, end);
    entries_.push_back({entry.name, entry.crc, payload});
  }
  if (cursor.remaining() != 0) throw malformed("has a directory with bytes after its last entry");
  check_overlaps(std::move(ranges));
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

void ZipReader::check_crc(const ZipEntry& entry) {
  if (crc32(entry.payload) != entry.crc)
    throw malformed("entry " + in_quotes(entry.name) +
                    " does not have the CRC that the archive records");
}

}  // namespace lora
