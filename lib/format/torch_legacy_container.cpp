#include <string>
#include <unordered_map>

#include "format/byte_cursor.h"
#include "format/in_quotes.h"
#include "format/torch_container.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora {
namespace {

using pickle::Dict;
using pickle::Document;
using pickle::List;

// 0x1950A86A20F9469CFC6C in little-endian two's complement.
constexpr std::string_view kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr std::int64_t kProtocol = 1001;

Error malformed(const std::string& what) { return Error(ErrorKind::malformed, what); }

/// Parses one pickle after another.
class PickleSequence {
 public:
  PickleSequence(std::span<const std::byte> file, AllocationBudget& budget)
      : file_(file), budget_(budget) {}
  Document next() {
    Document document = pickle::parse(file_.subspan(position_), budget_);
    position_ += document.consumed;
    return document;
  }
  std::span<const std::byte> rest() const { return file_.subspan(position_); }

 private:
  std::span<const std::byte> file_;
  AllocationBudget& budget_;
  std::size_t position_ = 0;
};

void check_magic(const Document& document) {
  const auto* magic = std::get_if<pickle::BigInt>(&document.root_value());
  if (magic == nullptr || magic->bytes != kMagic)
    throw malformed("found a pickle without the magic number of torch.save");
}

void check_protocol(const Document& document) {
  const auto* protocol = std::get_if<std::int64_t>(&document.root_value());
  if (protocol == nullptr || *protocol != kProtocol)
    throw Error(ErrorKind::unsupported,
                "found an unknown torch.save protocol, expected " + std::to_string(kProtocol));
}

void check_byte_order(const Document& document) {
  const auto* info = std::get_if<Dict>(&document.root_value());
  if (info == nullptr)
    throw malformed("found " + std::string(describe(document.root_value())) +
                    " as system description, expected a dict");
  for (const auto& [key, value] : info->items) {
    const auto* name = std::get_if<std::string_view>(&document[key]);
    const auto* is_set = std::get_if<bool>(&document[value]);
    if (name != nullptr && *name == "little_endian" && (is_set == nullptr || !*is_set))
      throw Error(ErrorKind::unsupported, "found big-endian storages, expected little-endian ones");
  }
}

struct Slot {
  const pickle::Storage* storage = nullptr;
  StorageBytes bytes;
  bool is_read = false;
};
using Slots = std::unordered_map<std::string_view, Slot>;

Slots collect_slots(const Document& document) {
  Slots slots;
  for (const pickle::Storage& storage : document.storages) {
    const auto [found, is_new] = slots.try_emplace(storage.key);
    Slot& slot = found->second;
    if (is_new) {
      slot.storage = &storage;
      slot.bytes.id = slots.size() - 1;
    } else if (slot.storage->count != storage.count || slot.storage->element != storage.element) {
      throw malformed("storage " + in_quotes(storage.key) + " is described in two ways");
    }
  }
  return slots;
}

void read_storages(const Document& keys, std::span<const std::byte> data, Slots& slots) {
  const auto* list = std::get_if<List>(&keys.root_value());
  if (list == nullptr)
    throw malformed("found " + std::string(describe(keys.root_value())) +
                    " as storage keys, expected a list");
  ByteCursor cursor(data);
  for (const pickle::Ref ref : list->items) {
    const auto* key = std::get_if<std::string_view>(&keys[ref]);
    const auto found = key == nullptr ? slots.end() : slots.find(*key);
    if (found == slots.end()) throw malformed("found a storage that no tensor mentions");
    Slot& slot = found->second;
    const std::string label = "storage " + in_quotes(*key);
    if (slot.is_read) throw malformed(label + " is stored twice");
    const std::uint64_t count = cursor.u64();
    if (!cursor.is_good()) throw malformed(label + " is cut short");
    if (count != slot.storage->count)
      throw malformed(label + " has " + std::to_string(count) + " elements, expected " +
                      std::to_string(slot.storage->count));
    const auto size = checked_mul(count, slot.storage->element->bytes);
    if (size) slot.bytes.bytes = cursor.take(*size);
    if (!size || !cursor.is_good())
      throw malformed(label + " of " + std::to_string(count) + " elements is cut short");
    slot.is_read = true;
  }
}

}  // namespace

TorchContents read_legacy_container(std::span<const std::byte> file, AllocationBudget& budget) {
  PickleSequence pickles(file, budget);
  check_magic(pickles.next());
  check_protocol(pickles.next());
  check_byte_order(pickles.next());
  TorchContents contents;
  contents.document = pickles.next();
  const Document keys = pickles.next();
  Slots slots = collect_slots(contents.document);
  read_storages(keys, pickles.rest(), slots);
  for (const pickle::Storage& storage : contents.document.storages) {
    const Slot& slot = slots.at(storage.key);
    if (!slot.is_read) throw malformed("storage " + in_quotes(storage.key) + " is missing");
    contents.storages.push_back(slot.bytes);
  }
  return contents;
}

}  // namespace lora
