#include "text/token_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "text/mixed_hash.h"

namespace lora::text {
namespace {

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = mixed(text.size());
  std::size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    hash = mixed(hash ^ word);
  }
  std::uint64_t tail = 0;
  if (i < text.size()) std::memcpy(&tail, text.data() + i, text.size() - i);
  return mixed(hash ^ tail);
}

}  // namespace

void TokenIndex::reserve(std::size_t count, std::size_t bytes) {
  slots_.assign(std::bit_ceil(std::max<std::size_t>(count + count / 2, 16)), {});
  texts_.reserve(bytes);
}

bool TokenIndex::insert(std::string_view text, std::uint32_t id) {
  if ((count_ + 1) * 4 > slots_.size() * 3) {
    const std::vector<Slot> old = std::exchange(slots_, {});
    slots_.resize(std::max<std::size_t>(16, old.size() * 2));
    for (const Slot& slot : old) {
      if (slot.id == kNone) continue;
      const std::size_t mask = slots_.size() - 1;
      std::size_t i = slot.hash & mask;
      while (slots_[i].id != kNone) i = (i + 1) & mask;
      slots_[i] = slot;
    }
  }
  const auto hash = static_cast<std::uint32_t>(hash_of(text));
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = hash & mask;
  for (; slots_[i].id != kNone; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.hash == hash && std::string_view(texts_).substr(slot.offset, slot.size) == text)
      return false;
  }
  slots_[i] = {static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(text.size()),
               hash, id};
  texts_ += text;
  ++count_;
  return true;
}

std::uint32_t TokenIndex::find(std::string_view text) const {
  if (slots_.empty()) return kNone;
  const auto hash = static_cast<std::uint32_t>(hash_of(text));
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = hash & mask; slots_[i].id != kNone; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.hash == hash && std::string_view(texts_).substr(slot.offset, slot.size) == text)
      return slot.id;
  }
  return kNone;
}

}  // namespace lora::text
