// SHA-256 (FIPS 180-4) over byte ranges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lora {

/// 32 bytes; written as 64 lower-case hexadecimal digits.
struct Digest {
  std::array<std::uint8_t, 32> bytes{};
  std::string hex() const;
  static std::optional<Digest> from_hex(std::string_view text);
  friend bool operator==(const Digest&, const Digest&) = default;
};

/// Incremental hash; finish() may be called once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  /// The eight bytes of `value`, least significant first.
  Sha256& update_u64(std::uint64_t value);
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest sha256(std::span<const std::byte> bytes);

}  // namespace lora
