#include "lora/base/sha256.h"

#include <vector>

#include "support/testing.h"

namespace lora {
namespace {

std::string hash_of(std::string_view text) { return Sha256().update(text).finish().hex(); }

}  // namespace

TEST_CASE("sha256 gives the digests of FIPS 180") {
  REQUIRE(hash_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  REQUIRE(hash_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  REQUIRE(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  REQUIRE(hash_of(std::string(1'000'000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256 does not depend on how the bytes are cut") {
  const std::string text(1000, 'x');
  for (const std::size_t cut : {0, 1, 63, 64, 65, 999, 1000}) {
    Sha256 hash;
    hash.update(std::string_view(text).substr(0, cut)).update(std::string_view(text).substr(cut));
    REQUIRE(hash.finish() == sha256(std::as_bytes(std::span(text))));
  }
}

TEST_CASE("sha256 hashes integers least significant byte first") {
  REQUIRE(Sha256().update_u64(0x0102030405060708ULL).finish().hex() ==
          hash_of("\x08\x07\x06\x05\x04\x03\x02\x01"));
}

TEST_CASE("digests are spelled as 64 lower-case digits and read back") {
  const Digest digest = Sha256().update("abc").finish();
  REQUIRE(Digest::from_hex(digest.hex()) == digest);
  REQUIRE_FALSE(Digest::from_hex(digest.hex().substr(1)));
  REQUIRE_FALSE(Digest::from_hex(digest.hex() + "0"));
  REQUIRE_FALSE(Digest::from_hex(std::string(64, 'A')));
  REQUIRE_FALSE(Digest::from_hex(std::string(63, '0') + "g"));
}

}  // namespace lora
