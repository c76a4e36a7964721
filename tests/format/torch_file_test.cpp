#include "lora/format/torch_file.h"

#include <cstring>
#include <functional>

#include "format/archive_bytes.h"
#include "lora/base/mapped_file.h"
#include "lora/base/random.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

using Extents = std::vector<std::int64_t>;

std::filesystem::path golden(std::string_view name) {
  return std::filesystem::path(LORA_SOURCE_DIR) / "tests/golden/torch" / name;
}

const TorchEntry& entry_of(const TorchFile& file, std::string_view name) {
  for (const TorchEntry& entry : file.entries)
    if (entry.name == name) return entry;
  FAIL("no entry " << name);
  std::abort();
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The fixtures' bytes: 7 i + 3, for booleans the lowest bit of that.
std::string patterned(DType dtype, std::size_t size) {
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i)
    bytes += static_cast<char>(dtype == DType::boolean ? (7 * i + 3) & 1 : (7 * i + 3) & 0xFF);
  return bytes;
}

std::string torch_zip(const std::string& body, const std::vector<EntrySpec>& more) {
  ArchiveSpec spec{.entries = {{.name = "x/data.pkl", .content = p_stream(body)}}};
  spec.entries.insert(spec.entries.end(), more.begin(), more.end());
  return zip_of(spec);
}

EntrySpec payload(const std::string& key, std::size_t size) {
  return {.name = "x/data/" + key, .content = std::string(size, '\x01')};
}

TorchFile read_bytes(const std::string& content) {
  TempDir dir;
  write_file(dir / "file.pt", content);
  return read_torch_file(dir / "file.pt");
}

void require_refused(ErrorKind kind, std::string_view part, const std::string& content) {
  require_error(kind, part, [&] { read_bytes(content); });
}

std::string one_tensor(const Extents& shape, const Extents& strides, std::int64_t offset = 0) {
  return p_dict({{"w", p_tensor(p_storage("FloatStorage", "0", 6), offset, shape, strides)}});
}

void require_refused_view(std::string_view part, const Extents& shape, const Extents& strides,
                          std::int64_t offset = 0, ErrorKind kind = ErrorKind::malformed) {
  require_refused(kind, part, torch_zip(one_tensor(shape, strides, offset), {payload("0", 24)}));
}

// The legacy container around a saved object and its storages.
const std::string kLegacyStart =
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + p_stream("M\xe9\x03");
std::string legacy(const std::string& body, const std::vector<std::string>& keys,
                   const std::string& data, const char* little_endian = "\x88") {
  std::string list = "](";
  for (const std::string& key : keys) list += p_text(key);
  return kLegacyStart + p_stream(p_dict({{"little_endian", little_endian}})) + p_stream(body) +
         p_stream(list + "e") + data;
}

}  // namespace

TEST_CASE("every dtype of torch is read bit for bit, in both containers") {
  for (const char* name : {"dtypes.pt", "scalars.pt", "empties.pt", "legacy_dtypes.pt",
                           "legacy_scalars.pt", "legacy_empties.pt"}) {
    INFO(name);
    const TorchFile file = read_torch_file(golden(name));
    REQUIRE(file.is_legacy == std::string_view(name).starts_with("legacy"));
    REQUIRE(file.entries.size() == 19);
    for (const TorchEntry& entry : file.entries) {
      REQUIRE(to_string(entry.tensor.dtype) == entry.name);
      const auto size =
          static_cast<std::size_t>(entry.tensor.numel()) * bits_of(entry.tensor.dtype) / 8;
      REQUIRE(text_of(entry.tensor.bytes) == patterned(entry.tensor.dtype, size));
    }
  }
  REQUIRE(read_torch_file(golden("dtypes.pt")).entries[0].tensor.shape == Extents{2, 3});
  REQUIRE(read_torch_file(golden("empties.pt")).entries[0].tensor.shape == Extents{2, 0, 3});
}

TEST_CASE("views share one storage; only those with gaps are copied") {
  for (const char* name : {"views.pt", "legacy_views.pt"}) {
    const TorchFile file = read_torch_file(golden(name));
    REQUIRE(file.entries.size() == 8);
    for (const TorchEntry& entry : file.entries) REQUIRE(entry.storage_id == 0);
    const auto& whole = entry_of(file, "whole").tensor;
    REQUIRE(entry_of(file, "tied").tensor.bytes.data() == whole.bytes.data());
    REQUIRE(entry_of(file, "rows").tensor.bytes.data() == whole.bytes.data() + 16);
    REQUIRE(entry_of(file, "rows").storage_offset == 4);
    REQUIRE(entry_of(file, "rows").tensor.to_f32() == std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11});
    REQUIRE(entry_of(file, "element").tensor.to_f32() == std::vector<float>{6});
    const auto& transposed = entry_of(file, "transposed");
    REQUIRE(transposed.tensor.shape == Extents{4, 3});
    REQUIRE(transposed.strides == Extents{1, 4});
    REQUIRE(transposed.tensor.to_f32() == std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
    REQUIRE(entry_of(file, "same_transposed").tensor.bytes.data() ==
            transposed.tensor.bytes.data());
    REQUIRE(entry_of(file, "columns").tensor.to_f32() == std::vector<float>{0, 2, 4, 6, 8, 10});
    const auto expanded = entry_of(file, "expanded").tensor.to_f32();
    REQUIRE(expanded.size() == 20);
    for (std::size_t i = 0; i < expanded.size(); ++i) REQUIRE(expanded[i] == float(i % 4));
  }
}

TEST_CASE("contiguous tensors of one file lie in one mapping and outlive the reader") {
  Tensor kept;
  {
    const TorchFile file = read_torch_file(golden("state_dict.pt"));
    const auto* owner = file.entries[0].tensor.keep_alive.get();
    for (const TorchEntry& entry : file.entries) REQUIRE(entry.tensor.keep_alive.get() == owner);
    kept = file.entries[0].tensor;
  }
  REQUIRE(kept.to_f32() == std::vector<float>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("state dicts are found at the top and nested, with what was left out") {
  for (const char* name : {"state_dict.pt", "legacy_state_dict.pt", "metadata.pt"}) {
    const TorchFile file = read_torch_file(golden(name));
    REQUIRE(file.nested_under.empty());
    REQUIRE(file.ignored.empty());
    REQUIRE(file.entries.size() == 4);
    REQUIRE(file.entries[0].name == "0.weight");
    REQUIRE(file.entries[3].name == "1.bias");
  }
  for (const char* name : {"nested.pt", "legacy_nested.pt"}) {
    const TorchFile file = read_torch_file(golden(name));
    REQUIRE(file.nested_under == "model");
    REQUIRE(file.entries.size() == 4);
    REQUIRE(file.ignored == std::vector<std::string>{"epoch", "optimizer", "best", "lr", "large",
                                                     "huge", "negative", "history", "shape",
                                                     "dtype", "device", "done", "raw", "counts",
                                                     "model.step"});
  }
  for (const char* nest : {"model", "state_dict", "module", "model_state_dict"}) {
    const auto tensor = p_tensor(p_storage("FloatStorage", "0", 6), 0, {6}, {1});
    const auto body = p_dict({{"epoch", "K\x01"}, {nest, p_dict({{"w", tensor}})}});
    const TorchFile file = read_bytes(torch_zip(body, {payload("0", 24)}));
    REQUIRE(file.nested_under == nest);
    REQUIRE(file.ignored == std::vector<std::string>{"epoch"});
  }
}

TEST_CASE("parameters and tensors with attributes are plain tensors") {
  for (const char* name : {"parameters.pt", "legacy_parameters.pt"}) {
    const TorchFile file = read_torch_file(golden(name));
    REQUIRE(file.entries.size() == 3);
    for (const TorchEntry& entry : file.entries) REQUIRE(entry.tensor.to_f32()[11] == 11.0f);
  }
}

TEST_CASE("newer pickle protocols of real torch are read") {
  for (const char* name : {"protocol4.pt", "protocol5.pt"})
    REQUIRE(entry_of(read_torch_file(golden(name)), "b").tensor.to_f32()[0] == 4.0f);
}

TEST_CASE("what torch can save and a state dict cannot hold is refused by name") {
  const auto refused = [](const char* name, const char* part) {
    require_error(ErrorKind::unsupported, part, [&] { read_torch_file(golden(name)); });
  };
  refused("hostile.pt", "refuses to run posix.system, argparse.Namespace");
  refused("sparse.pt", "refuses to run torch._utils._rebuild_sparse_tensor");
  refused("complex128.pt", "tensor \"a\": found dtype complex128");
  refused("conjugate.pt", "lazy conjugation");
}

TEST_CASE("errors carry the file, the tensor and the hint apart") {
  try {
    read_torch_file(golden("complex128.pt"));
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(error.file() == golden("complex128.pt").string());
    REQUIRE(error.tensor() == "a");
  }
  try {
    read_torch_file(golden("hostile.pt"));
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(error.hint().find("nothing was executed") != std::string::npos);
  }
}

TEST_CASE("views outside their storage are refused, however the sizes overflow") {
  const std::int64_t big = std::int64_t{1} << 62;
  REQUIRE(read_bytes(torch_zip(one_tensor({6}, {1}), {payload("0", 24)})).entries.size() == 1);
  require_refused_view("reaches beyond its storage of 24 bytes", {7}, {1});
  require_refused_view("reaches beyond", {6}, {1}, 1);
  require_refused_view("reaches beyond", {2}, {6});
  require_refused_view("reaches beyond", {2, 2}, {big, big});
  require_refused_view("reaches beyond", {3}, {big});
  require_refused_view("reaches beyond", {1}, {1}, std::numeric_limits<std::int64_t>::max());
  require_refused_view("overflows", {big, 4}, {0, 0});
  require_refused_view("overflows", {big}, {0});
  require_refused_view("overflows", {big, 8, 0}, {1, 1, 1});
}

TEST_CASE("a stride of 1-sized extents does not matter") {
  const auto body = one_tensor({1, 6, 1}, {999, 1, std::int64_t{1} << 62});
  const TorchFile file = read_bytes(torch_zip(body, {payload("0", 24)}));
  REQUIRE(file.entries[0].tensor.bytes.size() == 24);
}

TEST_CASE("expanded views may not ask for more memory than the file justifies") {
  require_refused_view("more memory than a file of its size justifies", {1 << 24}, {0}, 0,
                       ErrorKind::unsupported);
  const auto body = one_tensor({1 << 18}, {0});
  REQUIRE(read_bytes(torch_zip(body, {payload("0", 24)})).entries[0].tensor.numel() == 1 << 18);
  // Many views that are small enough alone.
  std::vector<std::pair<std::string, std::string>> items;
  for (int i = 0; i < 9; ++i)
    items.emplace_back("w" + std::to_string(i),
                       p_tensor(p_storage("FloatStorage", "0", 6), 0, {(1 << 21) + i}, {0}));
  require_refused(ErrorKind::unsupported, "more memory than",
                  torch_zip(p_dict(items), {payload("0", 24)}));
}

TEST_CASE("storages must be there with the size they claim") {
  const auto body = one_tensor({6}, {1});
  require_refused(ErrorKind::malformed, "storage \"0\" is missing", torch_zip(body, {}));
  require_refused(ErrorKind::malformed, "storage \"0\" has 20 bytes, expected 6 elements of 4",
                  torch_zip(body, {payload("0", 20)}));
  require_refused(ErrorKind::malformed, "storage \"0\" has 28 bytes",
                  torch_zip(body, {payload("0", 28)}));
}

TEST_CASE("zip files of other kinds are refused") {
  const auto body = one_tensor({6}, {1});
  require_refused(ErrorKind::unsupported, "big-endian",
                  torch_zip(body, {payload("0", 24), {.name = "x/byteorder", .content = "big"}}));
  require_refused(
      ErrorKind::malformed, "byte order \"middle\"",
      torch_zip(body, {payload("0", 24), {.name = "x/byteorder", .content = "middle"}}));
  require_refused(ErrorKind::unsupported, "TorchScript",
                  torch_zip(body, {{.name = "x/constants.pkl", .content = ""}}));
  require_refused(ErrorKind::malformed, "has no \"word/data.pkl\"",
                  zip_of({.entries = {{.name = "word/document.xml", .content = ""}}}));
  require_refused(ErrorKind::malformed, "expected a folder",
                  zip_of({.entries = {{.name = "data.pkl", .content = ""}}}));
  std::string damaged = torch_zip(body, {payload("0", 24)});
  damaged[damaged.find("FloatStorage")] = 'f';
  require_refused(ErrorKind::malformed, "does not have the CRC", damaged);
}

TEST_CASE("objects that are not state dicts are refused") {
  require_refused(ErrorKind::unsupported, "found a list, expected a dict", torch_zip("]", {}));
  require_refused(ErrorKind::unsupported, "found a dict without tensors (keys \"epoch\")",
                  torch_zip(p_dict({{"epoch", "K\x01"}}), {}));
  REQUIRE(read_bytes(torch_zip("}", {})).entries.empty());
  const auto tensor = p_tensor(p_storage("FloatStorage", "0", 6), 0, {6}, {1});
  require_refused(ErrorKind::malformed, "two tensors are named \"w\"",
                  torch_zip(p_dict({{"w", tensor}, {"w", tensor}}), {payload("0", 24)}));
  require_refused(ErrorKind::malformed, "not valid UTF-8",
                  torch_zip(p_dict({{"w\xff", tensor}}), {payload("0", 24)}));
}

TEST_CASE("broken legacy files are refused") {
  const auto body = one_tensor({6}, {1});
  const std::string data = little(6, 8) + std::string(24, '\x01');
  const TorchFile file = read_bytes(legacy(body, {"0"}, data));
  REQUIRE(file.is_legacy);
  REQUIRE(file.entries.size() == 1);
  require_refused(ErrorKind::malformed, "without the magic number", p_stream(body));
  require_refused(ErrorKind::unsupported, "unknown torch.save protocol",
                  kLegacyStart.substr(0, 15) + p_stream("K\x05"));
  require_refused(ErrorKind::unsupported, "big-endian", legacy(body, {"0"}, data, "\x89"));
  require_refused(ErrorKind::malformed, "storage \"0\" is missing", legacy(body, {}, data));
  require_refused(ErrorKind::malformed, "no tensor mentions", legacy(body, {"0", "1"}, data));
  require_refused(ErrorKind::malformed, "stored twice", legacy(body, {"0", "0"}, data + data));
  require_refused(ErrorKind::malformed, "has 7 elements, expected 6",
                  legacy(body, {"0"}, little(7, 8) + std::string(28, '\x01')));
  require_refused(ErrorKind::malformed, "is cut short", legacy(body, {"0"}, data.substr(0, 31)));
  const auto two = p_dict({{"a", p_tensor(p_storage("FloatStorage", "0", 6), 0, {6}, {1})},
                           {"b", p_tensor(p_storage("LongStorage", "0", 6), 0, {6}, {1})}});
  require_refused(ErrorKind::malformed, "described in two ways", legacy(two, {"0"}, data));
}

TEST_CASE("tar, empty and foreign files are refused, missing ones are not found") {
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  require_refused(ErrorKind::unsupported, "the tar form", tar);
  require_refused(ErrorKind::malformed, "the file is empty", "");
  require_refused(ErrorKind::malformed, "neither a zip archive nor a pickle", "{\"a\": 1}");
  TempDir dir;
  require_error(ErrorKind::not_found, "no such file", [&] { read_torch_file(dir / "none.pt"); });
}

TEST_CASE("torch files are recognised by their first bytes") {
  REQUIRE(looks_like_torch_file(golden("dtypes.pt")));
  REQUIRE(looks_like_torch_file(golden("legacy_dtypes.pt")));
  TempDir dir;
  write_file(dir / "text", "PKZIP");
  REQUIRE_FALSE(looks_like_torch_file(dir / "text"));
  write_file(dir / "empty", "");
  REQUIRE_FALSE(looks_like_torch_file(dir / "empty"));
  REQUIRE_FALSE(looks_like_torch_file(dir.path()));
  REQUIRE_FALSE(looks_like_torch_file(dir / "missing"));
}

TEST_CASE("a real file cut at any length or with flipped bytes gives an error or a result") {
  TempDir dir;
  std::size_t refused = 0;
  std::size_t accepted = 0;
  const auto attempt = [&](const std::string& content) {
    write_file(dir / "file.pt", content);
    try {
      std::size_t total = 0;
      for (const TorchEntry& entry : read_torch_file(dir / "file.pt").entries)
        for (const std::byte byte : entry.tensor.bytes) total += std::to_integer<std::size_t>(byte);
      accepted += total > 0;
    } catch (const Error& error) {
      REQUIRE(error.kind() != ErrorKind::internal);
      REQUIRE_FALSE(error.message().empty());
      ++refused;
    }
  };
  const CounterRandom random(20260101, stream_of("torch file"));
  std::uint64_t draw = 0;
  for (const char* name : {"views.pt", "legacy_views.pt", "nested.pt", "legacy_nested.pt"}) {
    INFO(name);
    const std::string whole = read_file(golden(name));
    const std::size_t before = refused;
    for (std::size_t length = 0; length < whole.size(); ++length) attempt(whole.substr(0, length));
    REQUIRE(refused - before == whole.size());
    for (int round = 0; round < 1500; ++round) {
      std::string damaged = whole;
      const std::uint64_t flips = 1 + random.below(draw++, 4);
      for (std::uint64_t i = 0; i < flips; ++i) {
        const std::uint64_t at = random.below(draw++, damaged.size());
        damaged[at] ^= static_cast<char>(1 + random.below(draw++, 255));
      }
      attempt(damaged);
    }
  }
  REQUIRE(accepted > 0);
}

TEST_CASE("written files are read back, with sharing, and are the same every time") {
  TempDir dir;
  const TorchFile original = read_torch_file(golden("dtypes.pt"));
  std::vector<std::pair<std::string, Tensor>> state;
  for (const TorchEntry& entry : original.entries) state.emplace_back(entry.name, entry.tensor);
  state.emplace_back("tied", state[4].second);
  state.emplace_back("empty", Tensor::from_f32({0, 3}, {}));
  state.emplace_back("scalar", Tensor::from_f32({}, std::vector<float>{2.5f}));
  const auto write = [&](const char* name) {
    write_file_atomically(dir / name, {},
                          [&](WritableFile& file) { write_torch_file(file, state); });
  };
  write("a.pt");
  write("b.pt");
  REQUIRE(read_file(dir / "a.pt") == read_file(dir / "b.pt"));
  const TorchFile copy = read_torch_file(dir / "a.pt");
  REQUIRE(copy.entries.size() == state.size());
  const auto mapping = MappedFile::open(dir / "a.pt");
  const std::string content = read_file(dir / "a.pt");
  for (std::size_t i = 0; i < state.size(); ++i) {
    INFO(state[i].first);
    REQUIRE(copy.entries[i].name == state[i].first);
    REQUIRE(copy.entries[i].tensor.dtype == state[i].second.dtype);
    REQUIRE(copy.entries[i].tensor.shape == state[i].second.shape);
    REQUIRE(text_of(copy.entries[i].tensor.bytes) == text_of(state[i].second.bytes));
    REQUIRE(reinterpret_cast<std::uintptr_t>(copy.entries[i].tensor.bytes.data()) % 64 == 0);
  }
  REQUIRE(entry_of(copy, "tied").storage_id == entry_of(copy, "F32").storage_id);
  REQUIRE(entry_of(copy, "tied").storage_id != entry_of(copy, "F64").storage_id);
}

TEST_CASE("tensors are loaded one at a time, aliases not at all") {
  TempDir dir;
  int alive = 0;
  int most = 0;
  const auto load = [&] {
    ++alive;
    most = std::max(most, alive);
    Tensor tensor = Tensor::from_f32({2}, std::vector<float>{1, 2});
    auto data = tensor.keep_alive;
    tensor.keep_alive =
        std::shared_ptr<const void>(data.get(), [&alive, data](const void*) { --alive; });
    return tensor;
  };
  const std::function<Tensor()> never = []() -> Tensor {
    throw std::logic_error("loaded an alias");
  };
  std::vector<TensorSource> sources = {
      {"a", DType::f32, {2}, load}, {"b", DType::f32, {2}, load}, {"c", DType::f32, {1, 2}, never}};
  write_file_atomically(dir / "a.pt", {}, [&](WritableFile& file) {
    write_torch_file(file, sources, {{"c", "a"}});
  });
  REQUIRE(most == 1);
  const TorchFile file = read_torch_file(dir / "a.pt");
  REQUIRE(entry_of(file, "c").storage_id == entry_of(file, "a").storage_id);
  REQUIRE(entry_of(file, "c").tensor.shape == Extents{1, 2});

  const auto refused = [&](ErrorKind kind, std::string_view part,
                           const std::vector<TensorSource>& tensors,
                           const std::map<std::string, std::string>& aliases) {
    require_error(kind, part, [&] {
      write_file_atomically(dir / "no.pt", {},
                            [&](WritableFile& out) { write_torch_file(out, tensors, aliases); });
    });
  };
  refused(ErrorKind::internal, "cannot share the storage of \"z\"", sources, {{"c", "z"}});
  refused(ErrorKind::internal, "cannot share the storage of \"b\"", sources,
          {{"c", "b"}, {"b", "a"}});
  refused(ErrorKind::internal, "given twice", {sources[0], sources[0]}, {});
  refused(ErrorKind::internal, "announced dtype and shape", {{"a", DType::f32, {3}, load}}, {});
  refused(ErrorKind::unsupported, "not valid UTF-8", {{"a\xff", DType::f32, {2}, load}}, {});
  refused(ErrorKind::unsupported, "dtype F4", {{"a", DType::f4, {2}, load}}, {});
  REQUIRE(entry_count(dir.path()) == 1);
}
