#include "lora/format/gguf.h"

#include <cstring>
#include <vector>

#include "lora/format/safetensors.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::require_error;

const std::filesystem::path kGolden = std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/gguf";

// A file put together byte by byte.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& text(std::string_view value) {
    put(std::uint64_t{value.size()});
    text_ += value;
    return *this;
  }
  Bytes& raw(std::string_view value) {
    text_ += value;
    return *this;
  }
  Bytes& pad_to(std::size_t unit) {
    text_.resize((text_.size() + unit - 1) / unit * unit, '\0');
    return *this;
  }
  const std::string& str() const { return text_; }

 private:
  std::string text_;
};

Bytes header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
  Bytes bytes;
  bytes.raw("GGUF").put(version).put(tensors).put(entries);
  return bytes;
}

struct Described {
  std::string name = "w";
  std::vector<std::uint64_t> extents{32};  // fastest first, as the file has them
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};

Bytes& describe(Bytes& bytes, const Described& tensor) {
  bytes.text(tensor.name).put(static_cast<std::uint32_t>(tensor.extents.size()));
  for (const std::uint64_t extent : tensor.extents) bytes.put(extent);
  return bytes.put(tensor.type).put(tensor.offset);
}

std::string file_with(const std::vector<Described>& tensors, std::size_t data) {
  Bytes bytes = header(tensors.size(), 0);
  for (const Described& tensor : tensors) describe(bytes, tensor);
  bytes.pad_to(32).raw(std::string(data, '\0'));
  return bytes.str();
}

void refuses(ErrorKind kind, std::string_view part, std::string_view content) {
  const testing::TempDir dir;
  testing::write_file(dir / "m.gguf", content);
  require_error(kind, part, [&] { read_gguf(dir / "m.gguf"); });
}

TEST_CASE("every block format widens to what the package gguf gives, bit for bit") {
  const GgufFile file = read_gguf(kGolden / "blocks.gguf");
  const SafetensorsFile golden = read_safetensors(kGolden / "blocks.safetensors");
  REQUIRE(file.version == 3);
  REQUIRE(file.tensors.size() == golden.tensors.size());
  std::size_t blocks = 0;
  for (const GgufTensor& tensor : file.tensors) {
    INFO(tensor.name);
    const Tensor& want = golden.tensors.at(tensor.name);
    REQUIRE(tensor.shape == want.shape);
    if (tensor.format->storage) {
      const Tensor plain{*tensor.format->storage, tensor.shape, tensor.bytes, file.mapping};
      REQUIRE(plain.to_f32() == want.to_f32());
      continue;
    }
    ++blocks;
    std::vector<float> values(static_cast<std::size_t>(want.numel()));
    dequantise(*tensor.format, tensor.bytes, values);
    REQUIRE(want.bytes.size() == values.size() * sizeof(float));
    REQUIRE(std::memcmp(values.data(), want.bytes.data(), want.bytes.size()) == 0);
  }
  REQUIRE(blocks == 11);
}

TEST_CASE("metadata of every type is read") {
  const GgufFile file = read_gguf(kGolden / "blocks.gguf");
  REQUIRE(file.text("general.architecture") == "llama");
  REQUIRE(file.text("general.name") == "all kinds of values");
  REQUIRE(file.integer("a.u8") == 200);
  REQUIRE(file.integer("a.i8") == -100);
  REQUIRE(file.integer("a.u16") == 60000);
  REQUIRE(file.integer("a.i16") == -30000);
  REQUIRE(file.integer("a.u32") == 4000000000);
  REQUIRE(file.integer("a.i32") == -2000000000);
  REQUIRE(file.integer("a.u64") == std::int64_t{1} << 62);
  REQUIRE(file.integer("a.i64") == -(std::int64_t{1} << 62));
  REQUIRE(file.number("a.f32") == 0.5);
  REQUIRE(file.number("a.f64") == 0.1);
  REQUIRE(file.number("a.u8") == 200.0);
  REQUIRE(file.flag("a.bool") == true);
  REQUIRE(file.integer("absent") == std::nullopt);
  REQUIRE(file.array("absent") == nullptr);
  std::vector<std::string> texts;
  file.array("a.texts")->each_text([&](std::string_view text) { texts.emplace_back(text); });
  REQUIRE(texts == std::vector<std::string>{"", "one", "zw\xc3\xb6lf"});
  std::vector<std::int64_t> integers;
  file.array("a.integers")->each_integer([&](std::int64_t value) { integers.push_back(value); });
  REQUIRE(integers == std::vector<std::int64_t>{3, -1, 7});
  require_error(ErrorKind::malformed, "metadata key \"a.u8\" is no text",
                [&] { file.text("a.u8"); });
}

TEST_CASE("a GGUF file is known by its first bytes") {
  REQUIRE(looks_like_gguf(kGolden / "blocks.gguf"));
  REQUIRE_FALSE(looks_like_gguf(kGolden / "blocks.safetensors"));
  REQUIRE_FALSE(looks_like_gguf(kGolden));
  require_error(ErrorKind::not_found, "no such file", [] { read_gguf(kGolden / "absent.gguf"); });
}

TEST_CASE("a GGUF file cut short anywhere is refused, with the place") {
  const std::string whole = testing::read_file(kGolden / "blocks.gguf");
  const testing::TempDir dir;
  for (std::size_t size = 0; size < whole.size(); size += size < 4096 ? 1 : 97) {
    testing::write_file(dir / "m.gguf", std::string_view(whole).substr(0, size));
    REQUIRE_THROWS_AS(read_gguf(dir / "m.gguf"), Error);
  }
  refuses(ErrorKind::malformed, "it ends inside its number of tensors at byte 8",
          std::string_view(whole).substr(0, 12));
}

TEST_CASE("a GGUF header that lies is refused by what it says") {
  refuses(ErrorKind::malformed, "does not begin with GGUF", "GGML....");
  refuses(ErrorKind::unsupported, "found version 1, expected 2 or 3", header(0, 0, 1).str());
  refuses(ErrorKind::unsupported, "big-endian", header(0, 0, 3U << 24).str());
  refuses(ErrorKind::malformed, "ends inside a metadata key", header(0, ~std::uint64_t{0}).str());
  refuses(ErrorKind::malformed, "ends inside a tensor's name", header(~std::uint64_t{0}, 0).str());
  refuses(ErrorKind::malformed, "value of type 13",
          header(0, 1).text("k").put(std::uint32_t{13}).str());
  refuses(ErrorKind::unsupported, "array of arrays",
          header(0, 1).text("k").put(9U).put(9U).put(std::uint64_t{1}).str());
  refuses(ErrorKind::malformed, "array beyond 64 bits",
          header(0, 1).text("k").put(9U).put(11U).put(std::uint64_t{1} << 62).str());
  refuses(ErrorKind::malformed, "does not fit in 63 bits",
          header(0, 1).text("k").put(10U).put(~std::uint64_t{0}).str());
  refuses(ErrorKind::malformed, "key \"k\" stands twice",
          header(0, 2).text("k").put(0U).put('a').text("k").put(0U).put('a').str());
  refuses(ErrorKind::malformed, "is not UTF-8", header(0, 1).text("\xff").put(0U).put('a').str());
  for (const std::uint32_t unit : {0U, 3U, 1U << 30})
    refuses(ErrorKind::malformed, "expected a power of two",
            header(0, 1).text("general.alignment").put(4U).put(unit).str());
}

TEST_CASE("a GGUF tensor that does not fit is refused by name") {
  const testing::TempDir dir;
  testing::write_file(dir / "m.gguf", file_with({{}, {"v", {32, 2}, 2, 128}}, 128 + 36));
  const GgufFile sound = read_gguf(dir / "m.gguf");
  REQUIRE(sound.tensors[1].shape == std::vector<std::int64_t>{2, 32});
  REQUIRE(sound.find("v")->bytes.size() == 36);
  REQUIRE(sound.find("x") == nullptr);

  const auto is_malformed = [](std::string_view part, const std::vector<Described>& tensors) {
    refuses(ErrorKind::malformed, part, file_with(tensors, 256));
  };
  is_malformed("tensor \"w\": found twice", {{}, {"w", {32}, 0, 128}});
  is_malformed("found 5 extents, expected at most 4", {{"w", {1, 1, 1, 1, 1}}});
  is_malformed("expected below 2^63", {{"w", {~std::uint64_t{0}}}});
  is_malformed("is too large", {{"w", {1ULL << 40, 1ULL << 40}}});
  is_malformed("its rows have 33 values, expected a multiple of 32 for Q4_0", {{"w", {33}, 2}});
  is_malformed("is no multiple of the alignment, 32", {{"w", {32}, 0, 16}});
  is_malformed("its 128 bytes at offset 160 lie outside the file", {{"w", {32}, 0, 160}});
  is_malformed("lie outside the file", {{"w", {32}, 0, ~std::uint64_t{31}}});
  is_malformed("tensor \"v\": it shares bytes with tensor \"w\"", {{}, {"v", {32}, 0, 96}});
  refuses(ErrorKind::unsupported, "tensor \"w\" is stored as type 16",
          file_with({{"w", {256}, 16}}, 256));
}

TEST_CASE("widening refuses what is no whole number of blocks") {
  const std::vector<std::byte> block(18);
  std::vector<float> out(33);
  require_error(ErrorKind::internal, "do not fit",
                [&] { dequantise(*gguf_format(2), block, out); });
  require_error(ErrorKind::internal, "do not fit",
                [&] { dequantise(*gguf_format(0), block, std::span(out).first(32)); });
}

}  // namespace
}  // namespace lora
