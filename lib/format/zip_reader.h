// Zip archives as torch.save writes them: stored entries only, read in place.
//
// The central directory is the list of entries, and every entry's local header and data descriptor
// must tell the same story: name, flags, method, sizes, CRC. Records may not overlap each other or
// the directory. Zip64 is understood; compression, encryption, split archives and data before the
// first record's offset base (self-extracting archives) are refused.
//
// Payload bytes are not touched, so their CRCs are not checked here; see ZipReader::check_crc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/allocation_budget.h"

namespace lora {

struct ZipEntry {
  std::string_view name;  ///< bytes of the archive, as stored
  std::uint32_t crc = 0;  ///< CRC-32 that the directory claims for the payload
  std::span<const std::byte> payload;
};

class ZipReader {
 public:
  /// Reads the directory of the archive that fills `archive` exactly; the bytes must outlive the
  /// reader. Throws Error(malformed | unsupported) with a message that names the entry, also when
  /// there are more entries than `budget` allows.
  ZipReader(std::span<const std::byte> archive, AllocationBudget& budget);

  const std::vector<ZipEntry>& entries() const { return entries_; }  ///< in directory order
  const ZipEntry* find(std::string_view name) const;                 ///< null when absent

  /// Throws Error(malformed) when the payload does not have the CRC that the directory claims.
  static void check_crc(const ZipEntry& entry);

 private:
  std::vector<ZipEntry> entries_;
  std::map<std::string_view, std::size_t> by_name_;
};

}  // namespace lora
