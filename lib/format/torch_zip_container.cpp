#include <string>
#include <unordered_map>

#include "format/in_quotes.h"
#include "format/torch_container.h"
#include "format/zip_reader.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

// The folder has the name of the file when Python writes, and "archive" or another when C++ does.
std::string find_folder(const ZipReader& zip) {
  if (zip.entries().empty()) throw Error(ErrorKind::malformed, "zip archive has no entries");
  const std::string_view first = zip.entries().front().name;
  const auto slash = first.find('/');
  if (slash == std::string_view::npos)
    throw Error(ErrorKind::malformed, "zip archive starts with " + in_quotes(first) +
                                          ", expected a folder with data.pkl in it");
  return std::string(first.substr(0, slash + 1));
}

void check_byte_order(const ZipReader& zip, const std::string& folder) {
  const ZipEntry* entry = zip.find(folder + "byteorder");
  if (entry == nullptr) return;  // written since torch 2.1 only
  const std::string_view order(reinterpret_cast<const char*>(entry->payload.data()),
                               entry->payload.size());
  if (order == "big")
    throw Error(ErrorKind::unsupported, "found big-endian storages, expected little-endian ones");
  if (order != "little")
    throw Error(ErrorKind::malformed,
                "found byte order " + in_quotes(order) + ", expected \"little\"");
}

}  // namespace

TorchContents read_zip_container(std::span<const std::byte> file, AllocationBudget& budget) {
  const ZipReader zip(file, budget);
  const std::string folder = find_folder(zip);
  if (zip.find(folder + "constants.pkl") != nullptr)
    throw Error(ErrorKind::unsupported, "found a TorchScript archive, expected a state dict")
        .with_hint("save the module's state_dict() with torch.save");
  const ZipEntry* pickle = zip.find(folder + "data.pkl");
  if (pickle == nullptr)
    throw Error(ErrorKind::malformed, "zip archive has no " + in_quotes(folder + "data.pkl") +
                                          ", so torch.save did not write it");
  ZipReader::check_crc(*pickle);
  check_byte_order(zip, folder);

  TorchContents contents;
  contents.document = pickle::parse(pickle->payload, budget);
  std::unordered_map<std::string_view, std::uint64_t> ids;
  for (const pickle::Storage& storage : contents.document.storages) {
    const ZipEntry* entry = zip.find(folder + "data/" + std::string(storage.key));
    const auto claimed = checked_mul(storage.count, storage.element->bytes);
    if (entry == nullptr && claimed != std::uint64_t{0})
      throw Error(ErrorKind::malformed, "storage " + in_quotes(storage.key) + " is missing");
    const auto bytes = entry == nullptr ? std::span<const std::byte>() : entry->payload;
    if (claimed != bytes.size())
      throw Error(ErrorKind::malformed, "storage " + in_quotes(storage.key) + " has " +
                                            std::to_string(bytes.size()) + " bytes, expected " +
                                            std::to_string(storage.count) + " elements of " +
                                            std::to_string(storage.element->bytes));
    const auto id = ids.emplace(storage.key, ids.size()).first->second;
    contents.storages.push_back({id, bytes});
  }
  return contents;
}

}  // namespace lora
