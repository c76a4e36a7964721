#include "text/piece_cache.h"

#include <algorithm>
#include <cstring>

#include "text/mixed_hash.h"

namespace lora::text {
namespace {

constexpr std::size_t kCacheLines = std::size_t{1} << 15;

}  // namespace

PieceCache::PieceCache() : lines_(kCacheLines) {}

void PieceCache::encode(const TokenModel& model, std::string_view piece,
                        std::vector<std::int64_t>& out) {
  Line* line = nullptr;
  Key key{};
  if (piece.size() <= kMaxKey) {
    std::memcpy(key.data(), piece.data(), piece.size());
    key[1] |= static_cast<std::uint64_t>(piece.size() + 1) << 56;
    const std::uint64_t hash = mixed(mixed(key[0]) ^ key[1]);
    line = &lines_[(hash >> 17) & (kCacheLines - 1)];
    if (line->key == key) {
      for (std::uint32_t i = 0; i < line->count; ++i) out.push_back(line->ids[i]);
      return;
    }
  }
  ids_.clear();
  model.encode(piece, ids_);
  out.insert(out.end(), ids_.begin(), ids_.end());
  if (line != nullptr && ids_.size() <= kMaxIds) {
    line->key = key;
    line->count = static_cast<std::uint32_t>(ids_.size());
    std::copy(ids_.begin(), ids_.end(), line->ids.begin());
  }
}

}  // namespace lora::text
