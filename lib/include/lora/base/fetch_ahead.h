// Memory asked for before it is needed.
#pragma once

#include <cstddef>
#include <span>

namespace lora {

/// Starts to bring `bytes` into the cache. Long streams that are worked on faster than memory comes
/// gain from it: a processor's own guesses end at each page. Pages that are not mapped in stay so.
inline void fetch_ahead(std::span<const std::byte> bytes) {
  constexpr std::size_t kLine = 64;
  for (std::size_t i = 0; i < bytes.size(); i += kLine) __builtin_prefetch(bytes.data() + i);
}

}  // namespace lora
