// The directory of a zip archive: payloads lie inside the archive and do not overlap.
#include <algorithm>

#include "format/zip_reader.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  const auto bytes = fuzz::bytes_of(data, size);
  fuzz::accepts([&] {
    AllocationBudget budget(bytes.size());
    const ZipReader zip(bytes, budget);
    std::vector<std::span<const std::byte>> payloads;
    for (const ZipEntry& entry : zip.entries()) {
      fuzz::require(zip.find(entry.name) == &entry, "an entry is found under its name");
      if (entry.payload.empty()) continue;
      fuzz::require(entry.payload.data() >= bytes.data() &&
                        entry.payload.data() + entry.payload.size() <= bytes.data() + bytes.size(),
                    "a payload lies inside the archive");
      payloads.push_back(entry.payload);
    }
    std::sort(payloads.begin(), payloads.end(),
              [](const auto& a, const auto& b) { return a.data() < b.data(); });
    for (std::size_t i = 1; i < payloads.size(); ++i)
      fuzz::require(payloads[i - 1].data() + payloads[i - 1].size() <= payloads[i].data(),
                    "payloads do not overlap");
    for (const ZipEntry& entry : zip.entries()) fuzz::accepts([&] { ZipReader::check_crc(entry); });
  });
  return 0;
}
