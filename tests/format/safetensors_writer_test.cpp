#include <algorithm>
#include <random>

#include "lora/format/safetensors.h"
#include "support/faulty_file_system.h"
#include "support/safetensors_bytes.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::parse_bytes;
using testing::read_file;
using testing::require_error;
using testing::TempDir;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/safetensors" /
         (name + ".safetensors");
}

// The same values as scripts/make_fixtures.py: byte i is 7 i + 3, of a boolean its lowest bit.
Tensor patterned(DType dtype, std::vector<std::int64_t> shape) {
  std::size_t bits = bits_of(dtype);
  for (const std::int64_t extent : shape) bits *= static_cast<std::size_t>(extent);
  std::vector<std::byte> data(bits / 8);
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto value = static_cast<std::uint8_t>(7 * i + 3);
    data[i] = static_cast<std::byte>(dtype == DType::boolean ? value & 1 : value);
  }
  return Tensor::from_bytes(dtype, std::move(shape), std::move(data));
}

constexpr DType kTorchDTypes[] = {
    DType::u64,     DType::i64,         DType::f64,         DType::c64,     DType::f32,
    DType::u32,     DType::i32,         DType::bf16,        DType::f16,     DType::u16,
    DType::i16,     DType::f8_e5m2fnuz, DType::f8_e4m3fnuz, DType::f8_e8m0, DType::f8_e4m3,
    DType::f8_e5m2, DType::i8,          DType::u8,          DType::boolean};

TensorMap every_dtype(const std::vector<std::int64_t>& shape) {
  TensorMap tensors;
  int number = 99;
  for (const DType dtype : kTorchDTypes)
    tensors.emplace(std::string(to_string(dtype)) + "." + std::to_string(number--),
                    patterned(dtype, shape));
  return tensors;
}

TensorMap f32_named(const std::vector<std::string>& names, const std::vector<std::int64_t>& shape) {
  TensorMap tensors;
  for (const std::string& name : names) tensors.emplace(name, patterned(DType::f32, shape));
  return tensors;
}

std::string written(const TensorMap& tensors, const Metadata* metadata) {
  const TempDir dir;
  write_safetensors(dir / "out.safetensors", tensors, metadata, {});
  REQUIRE(testing::entry_count(dir.path()) == 1);
  const std::string bytes = read_file(dir / "out.safetensors");
  REQUIRE(bytes.size() == safetensors_size(sources_of(tensors), metadata));
  return bytes;
}

TensorSource source_giving(std::string name, const Tensor& declared, const Tensor& given) {
  return {std::move(name), declared.dtype, declared.shape, [given] { return given; }};
}

void write_to(const std::filesystem::path& path, const std::vector<TensorSource>& sources) {
  write_file_atomically(
      path, {}, [&](WritableFile& file) { write_safetensors(file, sources, &pytorch_metadata()); });
}

}  // namespace

TEST_CASE("writer gives the bytes of the reference library") {
  REQUIRE(written(every_dtype({2, 3}), nullptr) == read_file(golden("dtypes")));
  REQUIRE(written(every_dtype({}), nullptr) == read_file(golden("scalars")));
  REQUIRE(written(every_dtype({2, 0, 3}), &pytorch_metadata()) == read_file(golden("empties")));
  REQUIRE(written({}, &pytorch_metadata()) == read_file(golden("no_tensors")));
}

TEST_CASE("writer escapes names and metadata as the reference library") {
  const std::vector<std::string> names{
      "F32.layers.10",
      "F32.layers.2",
      "F32.\"quoted\"\\back/slash",
      std::string("F32.\0\x01\x08\t\n\x0b\x0c\r\x1f\x7f", 14),
      "F32.\xC3\xA9\xE4\xB8\xAD\xE6\x96\x87\xF0\x9F\x98\x80\xE2\x80\xA8",
      "F32.",
      "F32. a"};
  REQUIRE(written(f32_named(names, {1}), &pytorch_metadata()) == read_file(golden("odd_names")));
  const Metadata none;
  const Metadata odd{{"k\"\n\xC3\xA9", "v\\\t\xE4\xB8\xAD"}};
  REQUIRE(written(f32_named({"F32.a"}, {3}), &none) == read_file(golden("empty_metadata")));
  REQUIRE(written(f32_named({"F32.a"}, {3}), &odd) == read_file(golden("odd_metadata")));
}

TEST_CASE("writer pads the header with spaces to a multiple of 8") {
  for (std::size_t length = 0; length < 8; ++length) {
    const auto tensors = f32_named({"F32." + std::string(length, 'x')}, {2});
    REQUIRE(written(tensors, nullptr) == read_file(golden("padding_" + std::to_string(length))));
  }
}

TEST_CASE("writer's order does not depend on the order it is given") {
  auto sources = sources_of(every_dtype({2, 3}));
  std::mt19937 generator(5);
  const TempDir dir;
  for (int round = 0; round < 5; ++round) {
    std::shuffle(sources.begin(), sources.end(), generator);
    write_file_atomically(dir / "x", WriteOptions{.force = true},
                          [&](WritableFile& file) { write_safetensors(file, sources, nullptr); });
    REQUIRE(read_file(dir / "x") == read_file(golden("dtypes")));
  }
}

TEST_CASE("writer places packed types after the bytes and before booleans") {
  TensorMap tensors;
  tensors.emplace("a", patterned(DType::boolean, {2}));
  tensors.emplace("b", patterned(DType::f4, {2}));
  tensors.emplace("c", patterned(DType::f6_e2m3, {4}));
  tensors.emplace("d", patterned(DType::f6_e3m2, {4}));
  tensors.emplace("e", patterned(DType::u8, {2}));
  const auto file = parse_bytes(written(tensors, nullptr));
  REQUIRE(file.in_order == std::vector<std::string>{"e", "d", "c", "b", "a"});
}

TEST_CASE("what the writer writes reads back the same") {
  for (const auto& name : {"dtypes", "scalars", "empties", "odd_names", "odd_metadata"}) {
    const auto file = read_safetensors(golden(name));
    REQUIRE(written(file.tensors, file.has_metadata ? &file.metadata : nullptr) ==
            read_file(golden(name)));
  }
}

TEST_CASE("writer sorts more than one metadata key") {
  const Metadata metadata{{"z", "1"}, {"a", "2"}};
  REQUIRE(written({}, &metadata).find(R"({"__metadata__":{"a":"2","z":"1"}})") == 8);
}

TEST_CASE("writer refuses a source that does not keep its word") {
  const TempDir dir;
  const Tensor declared = patterned(DType::f32, {2, 3});
  for (const Tensor& given : {patterned(DType::f32, {3, 2}), patterned(DType::f32, {6}),
                              patterned(DType::i32, {2, 3}), patterned(DType::bf16, {2, 3})})
    require_error(ErrorKind::internal, "expected F32 of shape [2, 3] in 24",
                  [&] { write_to(dir / "x", {source_giving("t", declared, given)}); });
  Tensor cut = declared;
  cut.bytes = cut.bytes.first(20);
  require_error(ErrorKind::internal, "[2, 3] in 20 bytes",
                [&] { write_to(dir / "x", {source_giving("t", declared, cut)}); });
  REQUIRE(testing::entry_count(dir.path()) == 0);
}

TEST_CASE("writer refuses names and shapes that the format cannot hold") {
  const TempDir dir;
  const Tensor one = patterned(DType::f32, {1});
  const auto write_named = [&](const std::string& name) {
    write_to(dir / "x", {source_giving(name, one, one)});
  };
  require_error(ErrorKind::unsupported, "reserves this name", [&] { write_named("__metadata__"); });
  require_error(ErrorKind::unsupported, "not valid UTF-8", [&] { write_named("a\xFF"); });
  require_error(ErrorKind::internal, "\"t\": given twice", [&] {
    write_to(dir / "x", {source_giving("t", one, one), source_giving("t", one, one)});
  });
  Tensor odd = patterned(DType::f4, {2});
  odd.shape = {3};
  require_error(ErrorKind::unsupported, "whole number of bytes",
                [&] { write_to(dir / "x", {source_giving("t", odd, odd)}); });
  odd.shape = {std::int64_t{1} << 62, 64};
  require_error(ErrorKind::unsupported, "whole number of bytes",
                [&] { write_to(dir / "x", {source_giving("t", odd, odd)}); });
  REQUIRE(testing::entry_count(dir.path()) == 0);
}

TEST_CASE("writer loads one tensor at a time and gathers small ones into large writes") {
  const TempDir dir;
  testing::FaultyFileSystem files;
  std::weak_ptr<const void> previous;
  std::vector<TensorSource> sources;
  for (int i = 0; i < 1000; ++i)
    sources.push_back({std::string("t") + std::to_string(i), DType::f32, {100}, [&previous] {
                         REQUIRE(previous.expired());
                         const Tensor tensor = patterned(DType::f32, {100});
                         previous = tensor.keep_alive;
                         return tensor;
                       }});
  write_file_atomically(dir / "x", WriteOptions{.file_system = &files},
                        [&](WritableFile& file) { write_safetensors(file, sources, nullptr); });
  REQUIRE(files.writes == 1);
  REQUIRE(read_safetensors(dir / "x").tensors.size() == 1000);
}

TEST_CASE("a full disk leaves no file") {
  const TempDir dir;
  testing::FaultyFileSystem files;
  const TensorMap tensors = every_dtype({2, 3});
  const std::uint64_t size = safetensors_size(sources_of(tensors), nullptr);
  for (const std::uint64_t room : {std::uint64_t{0}, std::uint64_t{100}, size - 1}) {
    files.bytes_until_full = room;
    require_error(ErrorKind::output, "no space left", [&] {
      write_safetensors(dir / "x", tensors, nullptr, WriteOptions{.file_system = &files});
    });
    REQUIRE(testing::entry_count(dir.path()) == 0);
  }
  files.bytes_until_full = size;
  write_safetensors(dir / "x", tensors, nullptr, WriteOptions{.file_system = &files});
  REQUIRE(read_file(dir / "x") == read_file(golden("dtypes")));
}

}  // namespace lora
