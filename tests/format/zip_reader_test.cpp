#include "format/zip_reader.h"

#include <array>

#include "format/archive_bytes.h"
#include "format/crc32.h"
#include "format/zip_writer.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

constexpr std::uint16_t kDescriptorFlag = 8;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void require_refused(ErrorKind kind, std::string_view part, const ArchiveSpec& spec) {
  const std::string archive = zip_of(spec);
  require_error(kind, part, [&] { ZipReader reader(bytes_of(archive), plenty()); });
}

class MemoryFile final : public WritableFile {
 public:
  void write(std::span<const std::byte> bytes) override { content += text_of(bytes); }
  void sync_and_close() override {}
  std::string content;
};

ArchiveSpec two_entries() {
  return {.entries = {{.name = "a/x", .content = "hello"}, {.name = "a/y", .content = "world!"}}};
}

std::string end64(std::uint64_t entries, std::uint64_t size, std::uint64_t offset,
                  std::uint64_t position) {
  return "PK\x06\x06" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) +
         little(entries, 8) + little(entries, 8) + little(size, 8) + little(offset, 8) +
         "PK\x06\x07" + little(0, 4) + little(position, 8) + little(1, 4);
}

}  // namespace

TEST_CASE("the crc is the one of zip files, for every length and in pieces") {
  REQUIRE(crc32(bytes_of("123456789")) == 0xCBF43926u);
  std::string text;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(crc32(bytes_of(text)) == slow_crc32(text));
    const auto cut = static_cast<std::size_t>(i) / 3;
    REQUIRE(crc32(bytes_of(text).subspan(cut), crc32(bytes_of(text).first(cut))) ==
            slow_crc32(text));
    text += static_cast<char>(37 * i + 11);
  }
}

TEST_CASE("stored entries are views of the archive") {
  const std::string archive = zip_of(two_entries());
  const ZipReader reader(bytes_of(archive), plenty());
  REQUIRE(reader.entries().size() == 2);
  REQUIRE(reader.entries()[1].name == "a/y");
  const ZipEntry* entry = reader.find("a/x");
  REQUIRE(entry != nullptr);
  REQUIRE(text_of(entry->payload) == "hello");
  REQUIRE(reinterpret_cast<const char*>(entry->payload.data()) > archive.data());
  REQUIRE(reinterpret_cast<const char*>(entry->payload.data()) < archive.data() + archive.size());
  REQUIRE(reader.find("a/z") == nullptr);
  ZipReader::check_crc(*entry);
}

TEST_CASE("a payload that does not have the recorded crc is told on request") {
  std::string archive = zip_of(two_entries());
  archive[archive.find("hello")] = 'j';
  const ZipReader reader(bytes_of(archive), plenty());
  require_error(ErrorKind::malformed, "CRC", [&] { ZipReader::check_crc(*reader.find("a/x")); });
}

TEST_CASE("a data descriptor must agree with the directory") {
  ArchiveSpec spec = two_entries();
  EntrySpec& entry = spec.entries[0];
  entry.flags = kDescriptorFlag;
  entry.local_size = 0;
  entry.local_crc = 0;
  const std::string values = little(slow_crc32("hello"), 4) + little(5, 4) + little(5, 4);
  for (const std::string& signature : {std::string(), std::string("PK\x07\x08")}) {
    entry.descriptor = signature + values;
    const std::string archive = zip_of(spec);
    REQUIRE(ZipReader(bytes_of(archive), plenty()).entries().size() == 2);
  }
  entry.descriptor = "PK\x07\x08" + little(slow_crc32("hello"), 4) + little(6, 4) + little(6, 4);
  require_refused(ErrorKind::malformed, "data descriptor", spec);
}

TEST_CASE("a directory that contradicts a local header is refused") {
  ArchiveSpec name = two_entries();
  name.entries[1].local_name = "a/q";
  require_refused(ErrorKind::malformed, "the directory lies", name);
  ArchiveSpec size = two_entries();
  size.entries[0].local_size = 4;
  require_refused(ErrorKind::malformed, "local header of 4 bytes where the directory says 5", size);
  ArchiveSpec crc = two_entries();
  crc.entries[0].local_crc = 4;
  require_refused(ErrorKind::malformed, "another CRC", crc);
  ArchiveSpec offset = two_entries();
  offset.entries[1].central_offset = 1;
  require_refused(ErrorKind::malformed, "no local header", offset);
  ArchiveSpec beyond = two_entries();
  beyond.entries[1].central_offset = 1 << 30;
  require_refused(ErrorKind::malformed, "beyond the directory", beyond);
}

TEST_CASE("two entries of one name are refused") {
  ArchiveSpec spec = two_entries();
  spec.entries[1].name = "a/x";
  require_refused(ErrorKind::malformed, "two entries named \"a/x\"", spec);
}

TEST_CASE("records that overlap are refused") {
  // The payload of the first entry is a whole record of its own, which the second entry names.
  const std::string inner = zip_of({.entries = {{.name = "b", .content = "zz"}}});
  const std::string record = inner.substr(0, inner.find("PK\x01\x02"));
  ArchiveSpec spec{.entries = {{.name = "a", .content = record}, {.name = "b", .content = "zz"}}};
  REQUIRE(ZipReader(bytes_of(zip_of(spec)), plenty()).entries().size() == 2);
  spec.entries[1].central_offset = 30 + 1;
  require_refused(ErrorKind::malformed, "overlap", spec);
}

TEST_CASE("compressed and encrypted entries are refused") {
  ArchiveSpec compressed = two_entries();
  compressed.entries[0].method = 8;
  require_refused(ErrorKind::unsupported, "is compressed (method 8)", compressed);
  for (const int flag : {1, 1 << 6, 1 << 13}) {
    ArchiveSpec encrypted = two_entries();
    encrypted.entries[0].flags = static_cast<std::uint16_t>(flag);
    require_refused(ErrorKind::unsupported, "is encrypted", encrypted);
  }
}

TEST_CASE("sizes beyond the file are refused") {
  ArchiveSpec spec = two_entries();
  spec.entries[1].central_size = 1 << 30;
  spec.entries[1].local_size = 1 << 30;
  require_refused(ErrorKind::malformed, "more than the file holds", spec);
  ArchiveSpec packed = two_entries();
  packed.entries[1].central_packed = 5;
  require_refused(ErrorKind::malformed, "claims 5 bytes for a content of 6", packed);
}

TEST_CASE("a directory that is not where the end record says is refused") {
  ArchiveSpec offset = two_entries();
  offset.directory_offset = 3;
  require_refused(ErrorKind::malformed, "does not end where its end record starts", offset);
  ArchiveSpec count = two_entries();
  count.entry_count = 500;
  require_refused(ErrorKind::malformed, "claims 500 entries", count);
  ArchiveSpec fewer = two_entries();
  fewer.entry_count = 1;
  require_refused(ErrorKind::malformed, "bytes after its last entry", fewer);
  const std::string prepended = "#!/bin/sh\n" + zip_of(two_entries());
  require_error(ErrorKind::malformed, "does not end where",
                [&] { ZipReader reader(bytes_of(prepended), plenty()); });
  require_error(ErrorKind::malformed, "no end record",
                [&] { ZipReader reader(bytes_of("PK\x03\x04 nothing"), plenty()); });
}

TEST_CASE("zip64 records are read where the plain fields are saturated, and must agree") {
  ArchiveSpec spec = two_entries();
  spec.entries[0].central_size = 0xFFFFFFFF;
  spec.entries[0].central_extra = little(1, 2) + little(16, 2) + little(5, 8) + little(5, 8);
  const std::string plain = zip_of(spec);
  REQUIRE(text_of(ZipReader(bytes_of(plain), plenty()).find("a/x")->payload) == "hello");

  const std::size_t start = plain.find("PK\x01\x02");
  const std::size_t end = plain.find("PK\x05\x06");
  spec.directory_offset = 0xFFFFFFFF;
  spec.directory_size = 0xFFFFFFFF;
  spec.entry_count = 0xFFFF;
  spec.after_directory = end64(2, end - start, start, end);
  const std::string wide = zip_of(spec);
  REQUIRE(ZipReader(bytes_of(wide), plenty()).entries().size() == 2);

  spec.entry_count = 3;
  require_refused(ErrorKind::malformed, "disagree", spec);
  spec.entry_count = 0xFFFF;
  spec.after_directory = end64(2, end - start, start, end + 1000);
  require_refused(ErrorKind::malformed, "beyond the end", spec);
  spec.after_directory = end64(2, ~std::uint64_t{0}, start, end);
  require_refused(ErrorKind::malformed, "does not end where", spec);

  ArchiveSpec bare = two_entries();
  bare.entries[0].central_size = 0xFFFFFFFF;
  require_refused(ErrorKind::malformed, "lacks its zip64 sizes", bare);
}

TEST_CASE("what the writer wrote is read back, payloads aligned") {
  MemoryFile file;
  ZipWriter writer(file, 64);
  // Name lengths around the point where the padding no longer fits its own header.
  for (std::size_t length = 1; length < 70; ++length)
    writer.add(std::string(length, 'n'), std::string(length * 3, 'c'));
  writer.add("empty", "");
  writer.finish();
  const ZipReader reader(bytes_of(file.content), plenty());
  REQUIRE(reader.entries().size() == 70);
  for (const ZipEntry& entry : reader.entries()) {
    ZipReader::check_crc(entry);
    const auto offset = reinterpret_cast<const char*>(entry.payload.data()) - file.content.data();
    REQUIRE(offset % 64 == 0);
  }
  REQUIRE(reader.find("nn")->payload.size() == 6);
}

TEST_CASE("the writer refuses an entry of another size than announced") {
  MemoryFile file;
  ZipWriter writer(file, 64);
  writer.begin("x", 3);
  writer.write(bytes_of("four"));
  require_error(ErrorKind::internal, "was given 4 bytes, expected 3", [&] { writer.end(); });
}

TEST_CASE("zip64 fields appear exactly where a value does not fit 32 bits") {
  const auto hex_has = [](const std::vector<std::byte>& bytes, const std::string& part) {
    return text_of(bytes).find(part) != std::string::npos;
  };
  const std::uint64_t huge = 0x1'2345'6789;
  const std::string zip64_extra = little(1, 2) + little(16, 2) + little(huge, 8) + little(huge, 8);
  const ZipRecord large{"n", huge, 100, 7};
  const auto local = zip_local_header(large, 64);
  REQUIRE((local.size() + 100) % 64 == 0);
  REQUIRE(hex_has(local, zip64_extra));
  REQUIRE(text_of(zip_descriptor(large)) ==
          "PK\x07\x08" + little(7, 4) + little(huge, 8) + little(huge, 8));
  REQUIRE(hex_has(zip_central_header(large), "n" + zip64_extra));
  const ZipRecord far{"n", 5, huge, 7};
  REQUIRE(hex_has(zip_central_header(far), "n" + little(1, 2) + little(8, 2) + little(huge, 8)));
  REQUIRE(hex_has(zip_central_header(far), little(0xFFFFFFFF, 4) + "n"));
  const ZipRecord limit{"n", 0xFFFFFFFE, 0xFFFFFFFE, 7};
  REQUIRE(zip_central_header(limit).size() == 46 + 1);
  REQUIRE(zip_descriptor(limit).size() == 16);
  REQUIRE(zip_end_records(2, 0xFFFFFFFE, 10).size() == 22);
  REQUIRE(zip_end_records(2, 0xFFFFFFFF, 10).size() == 56 + 20 + 22);
  REQUIRE(zip_end_records(0xFFFF, 10, 10).size() == 56 + 20 + 22);
  const std::string end = text_of(zip_end_records(3, huge, 200));
  REQUIRE(end.substr(24, 32) == little(3, 8) + little(3, 8) + little(200, 8) + little(huge, 8));
  REQUIRE(end.substr(64, 8) == little(huge + 200, 8));
}
