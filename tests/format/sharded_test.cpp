#include "lora/format/sharded.h"

#include "lora/format/json.h"
#include "support/faulty_file_system.h"
#include "support/testing.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;
using testing::read_file;
using testing::require_error;
using testing::TempDir;

const stdfs::path kGolden = stdfs::path(LORA_SOURCE_DIR) / "tests/golden/sharded";

std::vector<TensorSource> sources_in_model_order(const stdfs::path& directory) {
  TensorMap tensors;
  for (const auto& entry : stdfs::directory_iterator(directory))
    if (entry.path().extension() == ".safetensors")
      tensors.merge(read_safetensors(entry.path()).tensors);
  std::vector<TensorSource> sources;
  const Json order = read_json_file(directory / "order.json");
  for (const Json& name : *order.as_array()) {
    const Tensor tensor = tensors.at(*name.as_string());
    sources.push_back({*name.as_string(), tensor.dtype, tensor.shape, [tensor] { return tensor; }});
  }
  REQUIRE(sources.size() == tensors.size());
  return sources;
}

void require_same_as_transformers(const std::string& name, std::uint64_t limit) {
  const TempDir dir;
  AtomicDirectory out(dir / "out", {});
  const auto files = write_sharded(out, sources_in_model_order(kGolden / name), limit);
  out.commit();
  REQUIRE(testing::entry_count(dir / "out") == files.size());
  REQUIRE(testing::entry_count(kGolden / name) == files.size() + 1);  // order.json
  for (const std::string& file : files) {
    INFO(name << "/" << file);
    REQUIRE(read_file(dir.path() / "out" / file) == read_file(kGolden / name / file));
  }
}

ShardIndex index_of(const std::string& text) {
  const TempDir dir;
  testing::write_file(dir / "model.safetensors.index.json", text);
  return read_shard_index(dir / "model.safetensors.index.json");
}

}  // namespace

TEST_CASE("shards and index equal those of transformers byte for byte") {
  require_same_as_transformers("tied", 1500);
  require_same_as_transformers("untied", 500);
  require_same_as_transformers("whole", 1'000'000);
  require_same_as_transformers("whole", 0);
}

TEST_CASE("tensors go to the shards the reference would choose") {
  const Json cases = read_json_file(kGolden / "splits.json");
  REQUIRE(cases.as_array()->size() == 40);
  for (const Json& expected : *cases.as_array()) {
    std::vector<TensorSource> sources;
    for (const Json& size : *expected.find("sizes")->as_array()) {
      const std::vector<std::int64_t> shape{*size.as_int()};
      const Tensor zeros =
          Tensor::from_f32(shape, std::vector<float>(static_cast<std::size_t>(*size.as_int())));
      sources.push_back({std::string("t") + std::to_string(sources.size()), DType::f32, shape,
                         [zeros] { return zeros; }});
    }
    const TempDir dir;
    AtomicDirectory out(dir / "out", {});
    const auto files = write_sharded(out, sources, *expected.find("limit")->as_uint());
    out.commit();
    const JsonObject& weight_map = *expected.find("weight_map")->as_object();
    for (const auto& [name, file] : weight_map) {
      INFO(dump_json(expected, kCompactStyle) << " " << name);
      REQUIRE(read_safetensors(dir.path() / "out" / *file.as_string()).tensors.contains(name));
    }
    if (files.size() == 1) continue;
    const Json index = read_json_file(dir.path() / "out/model.safetensors.index.json");
    REQUIRE(*index.find("weight_map")->as_object() == weight_map);
    REQUIRE(*index.find("metadata")->find("total_size") == *expected.find("total_size"));
  }
}

TEST_CASE("total_parameters can be given where tensors hold more than parameters") {
  const TempDir dir;
  AtomicDirectory out(dir / "out", {});
  const Tensor tensor = Tensor::from_f32({2}, std::vector<float>{1, 2});
  std::vector<TensorSource> sources;
  for (const char* name : {"a", "b"})
    sources.push_back({name, tensor.dtype, tensor.shape, [tensor] { return tensor; }});
  write_sharded(out, sources, 8, 2);
  out.commit();
  const Json index = read_json_file(dir.path() / "out/model.safetensors.index.json");
  REQUIRE(*index.find("metadata")->find("total_parameters") == Json(2));
  REQUIRE(*index.find("metadata")->find("total_size") == Json(16));
}

TEST_CASE("no tensors give one file") {
  const TempDir dir;
  AtomicDirectory out(dir / "out", {});
  REQUIRE(write_sharded(out, {}, 10) == std::vector<std::string>{"model.safetensors"});
  out.commit();
  REQUIRE(read_safetensors(dir.path() / "out/model.safetensors").metadata == pytorch_metadata());
}

TEST_CASE("an index that was written can be read") {
  const auto index = read_shard_index(kGolden / "tied/model.safetensors.index.json");
  REQUIRE(index.files.size() == 4);
  REQUIRE(index.files.front() == "model-00001-of-00004.safetensors");
  REQUIRE(index.file_of.at("model.embed_tokens.weight") == "model-00001-of-00004.safetensors");
  REQUIRE_FALSE(index.file_of.contains("lm_head.weight"));
}

TEST_CASE("index tolerates any spelling of total_size and no metadata") {
  for (const std::string metadata :
       {R"("metadata":{"total_size":12},)", R"("metadata":{"total_size":12.0},)",
        R"("metadata":{"total_size":"12"},)", R"("metadata":{},)", R"("metadata":null,)", ""})
    REQUIRE(index_of("{" + metadata + R"("weight_map":{"a":"x.safetensors"}})").files ==
            std::vector<std::string>{"x.safetensors"});
}

TEST_CASE("index refuses file names that leave its directory") {
  for (const std::string name :
       {"../x", "..", ".", "", "/etc/passwd", "a/b", "a\\\\b", "..\\\\b", "a\\u0000b", "sub/"})
    require_error(ErrorKind::malformed, "expected the name of a file in the same directory",
                  [&] { index_of(R"({"weight_map":{"t":")" + name + R"("}})"); });
}

TEST_CASE("index refuses documents that are not one") {
  const auto bad = [](std::string_view part, const std::string& text) {
    require_error(ErrorKind::malformed, part, [&] { index_of(text); });
  };
  bad("found nothing as weight_map, expected an object", "{}");
  bad("found nothing as weight_map, expected an object", "[]");
  bad("found array as weight_map", R"({"weight_map":[]})");
  bad("names no tensor", R"({"weight_map":{}})");
  bad("tensor \"t\": found integer in weight_map", R"({"weight_map":{"t":1}})");
  bad("duplicate key \"t\"", R"({"weight_map":{"t":"a","t":"b"}})");
  bad("as JSON", "{");
  require_error(ErrorKind::not_found, "no such file",
                [] { read_shard_index("/nonexistent.json"); });
}

TEST_CASE("a full disk in the middle of the shards leaves nothing") {
  const TempDir dir;
  testing::FaultyFileSystem files;
  files.bytes_until_full = 4000;
  require_error(ErrorKind::output, "no space left", [&] {
    AtomicDirectory out(dir / "out", WriteOptions{.file_system = &files});
    write_sharded(out, sources_in_model_order(kGolden / "untied"), 500);
  });
  REQUIRE(testing::entry_count(dir.path()) == 0);
}

}  // namespace lora
