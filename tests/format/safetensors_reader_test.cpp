#include <string>

#include "lora/format/safetensors.h"
#include "support/safetensors_bytes.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::parse_bytes;
using testing::require_error;
using testing::safetensors_bytes;

constexpr std::string_view kTensorA = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";

// A header with one tensor "a" whose entry is given; 4 bytes of data.
std::string with_entry(std::string_view entry) {
  return safetensors_bytes("{\"a\":" + std::string(entry) + "}", "\1\2\3\4");
}

void require_malformed(std::string_view part, const std::string& content,
                       std::string_view tensor = "") {
  try {
    parse_bytes(content);
  } catch (const Error& error) {
    INFO(error.message());
    REQUIRE(to_string(error.kind()) == "malformed");
    REQUIRE(error.message().find("test.safetensors") != std::string::npos);
    REQUIRE(error.message().find(part) != std::string::npos);
    REQUIRE(error.message().find('\n') == std::string::npos);
    REQUIRE(error.file() == "test.safetensors");
    REQUIRE(error.tensor() == tensor);
    return;
  }
  FAIL("no error was thrown, expected one with: " << part);
}

}  // namespace

TEST_CASE("reader gives views into the file in data order") {
  const auto file = parse_bytes(safetensors_bytes(
      R"({"b":{"data_offsets":[4,8],"dtype":"I16","shape":[2,1]},"__metadata__":{"k":"v"},)" +
          std::string(kTensorA) + "}  ",
      "\1\2\3\4\5\6\7\x08"));
  REQUIRE(file.in_order == std::vector<std::string>{"a", "b"});
  REQUIRE(file.has_metadata);
  REQUIRE(file.metadata == Metadata{{"k", "v"}});
  const Tensor& b = file.tensors.at("b");
  REQUIRE(b.dtype == DType::i16);
  REQUIRE(b.shape == std::vector<std::int64_t>{2, 1});
  REQUIRE(b.bytes.size() == 4);
  REQUIRE(b.bytes[0] == std::byte{5});
  REQUIRE(b.bytes.data() == file.tensors.at("a").bytes.data() + 4);
  REQUIRE(b.keep_alive != nullptr);
}

TEST_CASE("reader maps a file and its tensors outlive the result") {
  const testing::TempDir dir;
  testing::write_file(dir / "x.safetensors", with_entry(kTensorA.substr(4)));
  Tensor tensor;
  {
    const auto file = read_safetensors(dir / "x.safetensors");
    REQUIRE(file.header_bytes == 8 + kTensorA.size() + 2);
    tensor = file.tensors.at("a");
  }
  REQUIRE(tensor.bytes[3] == std::byte{4});
  require_error(ErrorKind::not_found, "none.safetensors",
                [&] { read_safetensors(dir / "none.safetensors"); });
  require_error(ErrorKind::malformed, "found a directory", [&] { read_safetensors(dir.path()); });
}

TEST_CASE("reader accepts what the reference accepts") {
  REQUIRE(parse_bytes(safetensors_bytes("{}")).tensors.empty());
  REQUIRE_FALSE(parse_bytes(safetensors_bytes("{}")).has_metadata);
  REQUIRE(parse_bytes(safetensors_bytes(" \t\r\n{ } \n ")).tensors.empty());
  REQUIRE_FALSE(parse_bytes(safetensors_bytes(R"({"__metadata__":null})")).has_metadata);
  REQUIRE(parse_bytes(safetensors_bytes(R"({"__metadata__":{}})")).has_metadata);
  REQUIRE(parse_bytes(with_entry(R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})"))
              .tensors.at("a")
              .numel() == 1);
  const auto empty =
      R"({"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  REQUIRE(parse_bytes(with_entry(empty)).in_order == std::vector<std::string>{"b", "a"});
  const auto extra =
      R"({"x":{"dtype":[[1,"s",null,-1.5,true]]},"dtype":"F32","y":7,"shape":[1],"data_offsets":[0,4]})";
  REQUIRE(parse_bytes(with_entry(extra)).tensors.at("a").numel() == 1);
  const auto odd = safetensors_bytes(
      R"({"\u0000\"\u00e9\ud83d\ude00":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", "\2");
  REQUIRE(parse_bytes(odd).in_order.front() == std::string("\0\"\xC3\xA9\xF0\x9F\x98\x80", 8));
  const auto packed = R"({"dtype":"F4","shape":[2,4],"data_offsets":[0,4]})";
  REQUIRE(parse_bytes(with_entry(packed)).tensors.at("a").numel() == 8);
}

TEST_CASE("reader refuses files too short for their header") {
  require_malformed("found 0 bytes, expected at least 8", "");
  require_malformed("found 7 bytes, expected at least 8", "1234567");
  require_malformed("found 1 bytes after the header length, expected a header of 2",
                    safetensors_bytes("{}").substr(0, 9));
  require_malformed("header length of 100000001 bytes, expected at most 100000000",
                    std::string("\x01\xE1\xF5\x05\0\0\0\0", 8));
  require_malformed("found 0 bytes after the header length, expected a header of 100000000",
                    std::string("\x00\xE1\xF5\x05\0\0\0\0", 8));
  require_malformed("header length of 18446744073709551615", std::string(8, '\xFF'));
}

TEST_CASE("reader says what lies under the wrong name") {
  const auto hint = [](std::string content) {
    content.resize(64, ' ');
    try {
      parse_bytes(content);
    } catch (const Error& error) {
      return error.hint();
    }
    return std::string("no error");
  };
  REQUIRE(hint("version https://git-lfs.github.com/spec/v1").find("git lfs pull") !=
          std::string::npos);
  REQUIRE(hint("PK\x03\x04zip data").find("torch.save") != std::string::npos);
  REQUIRE(hint("<!DOCTYPE html>").find("web page") != std::string::npos);
}

TEST_CASE("reader refuses headers that are not one JSON object in UTF-8") {
  const auto bad = [](std::string_view part, std::string_view header) {
    require_malformed(part, safetensors_bytes(header));
  };
  bad("not valid JSON", "");
  bad("not valid JSON", "{");
  bad("not valid JSON", "{}}");
  bad("not valid JSON", "{},");
  bad("not valid JSON", "{\"a\"}");
  bad("not valid JSON", "{} // comment");
  bad("not valid JSON", R"({"__metadata__":{"a":"b",}})");
  bad("not valid JSON", "{\"__metadata__\":{\"a\":\"\xFF\"}}");
  bad("not valid JSON", "{\"__metadata__\":{\"a\":\"\xED\xA0\x80\"}}");
  bad("not valid JSON", "{\"__metadata__\":{\"a\":\"\xC0\x80\"}}");
  bad("not valid JSON", R"({"__metadata__":{"a":"\ud800"}})");
  bad("byte order mark", "\xEF\xBB\xBF{}");
  bad("NUL byte at offset 10", std::string_view("{}\0", 3));
  bad("NUL byte at offset 8", std::string_view("\0{}", 3));
  bad("found an array as its header, expected an object", "[]");
  bad("found null as its header", "null");
  bad("found the number 3 as its header", "3");
  bad("found the string \"x\" as its header", "\"x\"");
}

TEST_CASE("reader refuses wrong metadata") {
  const auto bad = [](std::string_view part, std::string_view header) {
    require_malformed(part, safetensors_bytes(header));
  };
  bad("found the number 1 as __metadata__, expected an object", R"({"__metadata__":1})");
  bad("found an array as __metadata__", R"({"__metadata__":[]})");
  bad("found the number 1 as __metadata__ value of \"k\", expected a string",
      R"({"__metadata__":{"k":1}})");
  bad("found an object as __metadata__ value", R"({"__metadata__":{"k":{}}})");
  bad("found null as __metadata__ value", R"({"__metadata__":{"k":null}})");
  bad("duplicate key \"k\" in __metadata__", R"({"__metadata__":{"k":"1","k":"2"}})");
  bad("duplicate __metadata__", R"({"__metadata__":{},"__metadata__":{}})");
  bad("duplicate __metadata__", R"({"__metadata__":null,"__metadata__":{}})");
}

TEST_CASE("reader refuses wrong tensor entries and names the tensor") {
  const auto bad = [](std::string_view part, std::string_view entry) {
    require_malformed(part, with_entry(entry), "a");
  };
  bad("found an array, expected an object", R"(["F32",[1],[0,4]])");
  bad("found null, expected an object", "null");
  bad("found a boolean, expected an object", "true");
  bad("found the string \"F32\", expected an object", "\"F32\"");
  bad("field dtype is missing", R"({"shape":[1],"data_offsets":[0,4]})");
  bad("field shape is missing", R"({"dtype":"F32","data_offsets":[0,4]})");
  bad("field data_offsets is missing", R"({"dtype":"F32","shape":[1]})");
  bad("found field dtype twice",
      R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})");
  bad("found field shape twice", R"({"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]})");
  bad("found field data_offsets twice",
      R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]})");
  bad("found dtype \"f32\"", R"({"dtype":"f32","shape":[1],"data_offsets":[0,4]})");
  bad("found dtype \"F128\"", R"({"dtype":"F128","shape":[1],"data_offsets":[0,4]})");
  bad("found null as dtype, expected a string",
      R"({"dtype":null,"shape":[1],"data_offsets":[0,4]})");
  bad("found an object as shape, expected an array",
      R"({"dtype":"F32","shape":{},"data_offsets":[0,4]})");
  bad("found the number 1 as shape", R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})");
  bad("found the negative number -1 in its shape",
      R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})");
  bad("found the number \"1.0\" in its shape",
      R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})");
  bad("found an array in its shape", R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})");
  bad("found the string \"1\" in its shape",
      R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})");
  bad("found extent 9223372036854775808",
      R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]})");
  bad("found the number \"18446744073709551616\" in its shape",
      R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]})");
  bad("found 1 data_offsets", R"({"dtype":"F32","shape":[1],"data_offsets":[0]})");
  bad("found more than 2 data_offsets", R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,4]})");
  bad("found the negative number -4 in its data_offsets",
      R"({"dtype":"F32","shape":[1],"data_offsets":[-4,0]})");
  bad("found the number \"4.0\" in its data_offsets",
      R"({"dtype":"F32","shape":[1],"data_offsets":[0,4.0]})");
  bad("found data_offsets [4, 0], expected begin <= end",
      R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})");
}

TEST_CASE("reader refuses sizes that disagree or overflow") {
  const auto bad = [](std::string_view part, std::string_view entry) {
    require_malformed(part, with_entry(entry), "a");
  };
  bad("found 4 bytes in its data_offsets, expected 8 for F32 of shape [2]",
      R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})");
  bad("found 4 bytes in its data_offsets, expected 0 for F32 of shape [0]",
      R"({"dtype":"F32","shape":[0],"data_offsets":[0,4]})");
  bad("does not fit in 64 bits",
      R"({"dtype":"U8","shape":[4611686018427387904,8],"data_offsets":[0,4]})");
  bad("does not fit in 64 bits",
      R"({"dtype":"U8","shape":[4611686018427387904,8,0],"data_offsets":[0,0]})");
  bad("does not fit in 64 bits",
      R"({"dtype":"F32","shape":[1152921504606846977],"data_offsets":[0,4]})");
  bad("takes 4 bits, expected whole bytes", R"({"dtype":"F4","shape":[1],"data_offsets":[0,0]})");
  bad("takes 18 bits, expected whole bytes",
      R"({"dtype":"F6_E2M3","shape":[3],"data_offsets":[0,2]})");
}

TEST_CASE("reader refuses unknown fields nested too deep") {
  const auto nested = [](std::size_t depth) {
    return with_entry("{\"x\":" + std::string(depth, '[') + std::string(depth, ']') +
                      R"(,"dtype":"F32","shape":[1],"data_offsets":[0,4]})");
  };
  REQUIRE(parse_bytes(nested(128)).tensors.size() == 1);
  require_malformed("nested deeper than 128 levels", nested(129), "a");
  require_malformed("nested deeper than 128 levels", nested(1'000'000), "a");
}

TEST_CASE("reader refuses data that tensors do not tile exactly") {
  const std::string a(kTensorA);
  const auto two = [&](std::string_view offsets, std::size_t size) {
    return safetensors_bytes("{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[)" +
                                 std::string(offsets) + "]}}",
                             std::string(size, 'x'));
  };
  REQUIRE(parse_bytes(two("4,8", 8)).tensors.size() == 2);
  require_malformed("hole before its data: found it to begin at 5, expected 4", two("5,9", 9), "b");
  require_malformed("overlap with other data: found it to begin at 3, expected 4", two("3,7", 7),
                    "b");
  require_malformed("overlap with other data: found it to begin at 0, expected 4", two("0,4", 4),
                    "b");
  require_malformed("found 7 bytes of tensor data, expected at least 8", two("4,8", 7), "b");
  require_malformed("found 9 bytes of tensor data, expected 8 (trailing bytes)", two("4,8", 9));
  require_malformed("hole before its data",
                    with_entry(R"({"dtype":"U8","shape":[3],"data_offsets":[1,4]})"), "a");
}

TEST_CASE("reader refuses a tensor name that appears twice") {
  require_malformed(
      "tensor \"a\": found twice",
      safetensors_bytes(
          "{" + std::string(kTensorA) + R"(,"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          "12345678"),
      "a");
  require_malformed(
      "found twice",
      safetensors_bytes("{" + std::string(kTensorA) +
                            R"(,"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                        "1234"),
      "a");
}

TEST_CASE("reader keeps messages short and on one line whatever the name") {
  const std::string name = "\\n" + std::string(100'000, 'n');
  try {
    parse_bytes(safetensors_bytes("{\"" + name + "\":1}"));
    FAIL("no error was thrown");
  } catch (const Error& error) {
    REQUIRE(error.message().size() < 400);
    REQUIRE(error.message().find('\n') == std::string::npos);
    REQUIRE(error.message().find("nnn...\"") != std::string::npos);
  }
}

TEST_CASE("reader refuses headers that describe more than the file justifies") {
  const auto tensors = [](std::size_t count) {
    std::string header = "{";
    for (std::size_t i = 0; i < count; ++i)
      header += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
                R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
    return safetensors_bytes(header + "}");
  };
  REQUIRE(parse_bytes(tensors(10'000)).tensors.size() == 10'000);
  constexpr std::string_view kReason = "describes more than a file of its size justifies";
  try {
    parse_bytes(tensors(30'000));
    FAIL("no error was thrown");
  } catch (const Error& error) {
    REQUIRE(error.message().find(kReason) != std::string::npos);
  }
  std::string shape = "1";
  for (int i = 0; i < 2'000'000; ++i) shape += ",1";
  require_malformed(kReason,
                    with_entry(R"({"dtype":"F32","data_offsets":[0,4],"shape":[)" + shape + "]}"));
  std::string metadata = R"("0":"")";
  for (int i = 1; i < 240'000; ++i) metadata += ",\"" + std::to_string(i) + R"(":"")";
  require_malformed(kReason, safetensors_bytes(R"({"__metadata__":{)" + metadata + "}}"));
  require_malformed("a string or number of more than 2097152 bytes",
                    safetensors_bytes("{\"" + std::string(3 << 20, 'n') +
                                          R"(":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
                                      "x"));
}

}  // namespace lora
