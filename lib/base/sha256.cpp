#include "lora/base/sha256.h"

#include <openssl/evp.h>

#include <algorithm>

#include "lora/base/error.h"
#include "lora/base/fetch_ahead.h"

namespace lora {
namespace {

// Bytes hashed while the next ones come.
constexpr std::size_t kRun = 2048;

}  // namespace

std::string Digest::hex() const {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(64);
  for (const std::uint8_t byte : bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::optional<Digest> Digest::from_hex(std::string_view text) {
  if (text.size() != 64) return std::nullopt;
  Digest digest;
  for (std::size_t i = 0; i < 64; ++i) {
    const char c = text[i];
    int value = 0;
    if (c >= '0' && c <= '9') {
      value = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      value = c - 'a' + 10;
    } else {
      return std::nullopt;
    }
    digest.bytes[i / 2] = static_cast<std::uint8_t>((digest.bytes[i / 2] << 4) | value);
  }
  return digest;
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1)
    throw Error(ErrorKind::resources, "cannot start a SHA-256 computation in libcrypto");
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t count = std::min(kRun, bytes.size());
    const std::span<const std::byte> rest = bytes.subspan(count);
    fetch_ahead(rest.first(std::min(kRun, rest.size())));
    if (EVP_DigestUpdate(state_->context, bytes.data(), count) != 1)
      throw Error(ErrorKind::internal, "cannot continue a SHA-256 computation in libcrypto");
    bytes = rest;
  }
  return *this;
}

Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text.data(), text.size())));
}

Sha256& Sha256::update_u64(std::uint64_t value) {
  std::array<std::byte, 8> bytes{};
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return update(bytes);
}

Digest Sha256::finish() {
  Digest digest;
  unsigned length = 0;
  if (EVP_DigestFinal_ex(state_->context, digest.bytes.data(), &length) != 1 ||
      length != digest.bytes.size())
    throw Error(ErrorKind::internal, "cannot finish a SHA-256 computation in libcrypto");
  return digest;
}

Digest sha256(std::span<const std::byte> bytes) { return Sha256().update(bytes).finish(); }

}  // namespace lora
