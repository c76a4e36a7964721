#include "lora/format/safetensors.h"

#include <random>

#include "support/safetensors_bytes.h"
#include "support/testing.h"

namespace lora {
namespace {

// True when the bytes were accepted. Anything but success and lora::Error ends the test; so does a
// tensor that reaches outside the file (a sanitizer build sees the reads).
bool survives(const std::string& content) {
  try {
    const auto file = testing::parse_bytes(content);
    unsigned sum = 0;
    for (const auto& [name, tensor] : file.tensors) {
      for (const std::byte byte : tensor.bytes) sum += static_cast<unsigned>(byte);
      REQUIRE(tensor.bytes.size() * 8 ==
              static_cast<std::size_t>(tensor.numel()) * bits_of(tensor.dtype));
    }
    REQUIRE(file.in_order.size() == file.tensors.size());
    return sum <= content.size() * 255;
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::malformed);
    REQUIRE(error.message().find('\n') == std::string::npos);
    return false;
  }
}

std::vector<std::string> valid_files() {
  std::vector<std::string> files;
  for (const char* name : {"dtypes", "empties", "odd_names", "odd_metadata", "no_tensors"})
    files.push_back(testing::read_file(std::string(LORA_SOURCE_DIR) + "/tests/golden/safetensors/" +
                                       name + ".safetensors"));
  return files;
}

}  // namespace

TEST_CASE("safetensors cut at any length is refused") {
  for (const std::string& file : valid_files()) {
    REQUIRE(survives(file));
    for (std::size_t length = 0; length < file.size(); ++length)
      REQUIRE_FALSE(survives(file.substr(0, length)));
  }
}

TEST_CASE("safetensors with anything appended is refused") {
  for (const std::string& file : valid_files())
    for (const std::string& tail : {std::string(1, '\0'), std::string("PK\x05\x06"), file})
      REQUIRE_FALSE(survives(file + tail));
}

TEST_CASE("safetensors with random bytes changed never gives anything but an error") {
  std::mt19937 generator(20240607);
  const auto below = [&](std::size_t bound) { return generator() % bound; };
  std::size_t accepted = 0;
  std::size_t refused = 0;
  for (const std::string& file : valid_files()) {
    for (int round = 0; round < 4000; ++round) {
      std::string changed = file;
      for (std::size_t n = 1 + below(4); n > 0; --n)
        changed[below(changed.size())] = static_cast<char>(generator());
      ++(survives(changed) ? accepted : refused);
    }
  }
  // Both ends of the reader were reached: values may change freely, the header may not.
  REQUIRE(accepted > 100);
  REQUIRE(refused > 10'000);
}

TEST_CASE("safetensors with JSON pieces shuffled in its header never gives anything but an error") {
  std::mt19937 generator(11);
  const std::vector<std::string> pieces{
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      "\"a\"",
      "\"dtype\"",
      "0",
      "4",
      "-1",
      "1.5",
      "null",
      "\"F32\"",
      "\"shape\"",
      "\"data_offsets\"",
      " ",
      "true",
      "1e400",
      "\"",
      "\\u",
      "18446744073709551615",
      "\"__metadata__\"",
      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"};
  std::size_t accepted = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::string header = "{";
    for (std::size_t n = generator() % 8; n > 0; --n) header += pieces[generator() % pieces.size()];
    if (generator() % 2 == 0) header += "}";
    if (survives(testing::safetensors_bytes(header, "1234"))) ++accepted;
  }
  REQUIRE(accepted > 0);
}

}  // namespace lora
