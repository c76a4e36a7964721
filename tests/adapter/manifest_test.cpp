#include "lora/adapter/manifest.h"

#include <cmath>
#include <limits>

#include "adapter/golden.h"
#include "lora/base/tensor_digest.h"
#include "lora/format/safetensors.h"
#include "support/testing.h"

namespace lora {
namespace {

using testing::golden;
using testing::require_error;
using testing::TempDir;

Manifest example() {
  Manifest manifest = make_manifest(open_adapter(golden("adapters/llama")), 1);
  manifest.base_root = sha256({});
  manifest.base_tensors["model.layers.0.self_attn.q_proj.weight"] = sha256({});
  manifest.history.push_back(JsonObject{{"operation", "train"}, {"steps", 3}});
  return manifest;
}

TEST_CASE("a manifest records every tensor and every scaling, on any number of threads") {
  const Adapter adapter = open_adapter(golden("adapters/llama"));
  const Manifest manifest = make_manifest(adapter, 1);
  CHECK(manifest.tensors.size() == adapter.tensors.size());
  CHECK(manifest.scaling.at("model.layers.0.self_attn.q_proj") == 4 / std::sqrt(2.0));
  for (const auto& [key, record] : manifest.tensors) {
    const Tensor& tensor = adapter.tensors.at(key);
    CHECK(record.dtype == "F32");
    CHECK(record.shape == tensor.shape);
    CHECK(record.digest == tensor_digest(key, tensor));
    double sum = 0;
    for (const double value : tensor.to_f64()) sum += value;
    CHECK(record.mean == sum / static_cast<double>(tensor.numel()));
  }
  CHECK(dump_json(to_json(make_manifest(adapter, 4))) == dump_json(to_json(manifest)));
}

TEST_CASE("the mean is summed in double, in order, past one block") {
  std::vector<float> values(10000, 0.1F);
  values[9999] = 1e8F;
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  CHECK(record_tensor("x", Tensor::from_f32({100, 100}, values)).mean == sum / 10000);
  CHECK(record_tensor("x", Tensor::from_f32({0, 4}, {})).mean == 0);
}

TEST_CASE("a manifest survives its file, means that are not finite included") {
  Manifest manifest = example();
  const std::string first = manifest.tensors.begin()->first;
  auto record = manifest.tensors.begin();
  (record++)->second.mean = std::numeric_limits<double>::quiet_NaN();
  (record++)->second.mean = std::numeric_limits<double>::infinity();
  (record++)->second.mean = -std::numeric_limits<double>::infinity();
  manifest.tensors["base_model.model.ids"] =
      record_tensor("ids", Tensor::from_i64({1}, std::vector<std::int64_t>{7}));
  const TempDir folder;
  AtomicDirectory out(folder / "a", {});
  write_manifest(out, manifest);
  out.commit();
  const auto read = read_manifest(folder / "a");
  REQUIRE(read.has_value());
  CHECK(dump_json(to_json(*read)) == dump_json(to_json(manifest)));
  CHECK(std::isnan(read->tensors.at(first).mean));
  CHECK(read->base_root == manifest.base_root);
  CHECK(read->history == manifest.history);
  CHECK_FALSE(read_manifest(folder.path()).has_value());
}

TEST_CASE("a manifest without a base says null") {
  const Manifest manifest = make_manifest(open_adapter(golden("adapters/mlp")), 1);
  const Json document = to_json(manifest);
  CHECK(document.find("base")->is_null());
  CHECK_FALSE(parse_manifest(document, "m").base_root.has_value());
}

TEST_CASE("a manifest that is not exact is refused with the place") {
  struct Edit {
    const char* part;
    void (*apply)(JsonObject&);
  };
  const Edit edits[] = {
      {"the document is without \"history\"", [](JsonObject& o) { o.erase("history"); }},
      {"unknown member \"extra\"", [](JsonObject& o) { o["extra"] = 1; }},
      {"schema is integer", [](JsonObject& o) { o["schema"] = 1; }},
      {"base.root is \"12\", expected 64 hexadecimal digits",
       [](JsonObject& o) { (*o["base"].as_object())["root"] = "12"; }},
      {"base is without \"root\"", [](JsonObject& o) { o["base"].as_object()->erase("root"); }},
      {"base.tensors is array",
       [](JsonObject& o) { (*o["base"].as_object())["tensors"] = JsonArray(); }},
      {"scaling is array", [](JsonObject& o) { o["scaling"] = JsonArray(); }},
      {"scaling[q] is string",
       [](JsonObject& o) {
         o["scaling"] = JsonObject{{"q", "1"}};
       }},
      {"tensors[t] is without \"dtype\"",
       [](JsonObject& o) {
         o["tensors"] = JsonObject{{"t", JsonObject()}};
       }},
      {"history is object", [](JsonObject& o) { o["history"] = JsonObject(); }},
      {"an entry of history is integer", [](JsonObject& o) { o["history"] = JsonArray{1}; }},
  };
  for (const Edit& edit : edits) {
    INFO(edit.part);
    Json document = to_json(example());
    edit.apply(*document.as_object());
    require_error(ErrorKind::malformed, edit.part, [&] { parse_manifest(document, "m.json"); });
  }
  require_error(ErrorKind::malformed, "the document is array",
                [] { parse_manifest(JsonArray(), "m.json"); });
}

TEST_CASE("a tensor record of a manifest is checked member by member") {
  struct Edit {
    const char* member;
    Json value;
    const char* part;
  };
  const Edit edits[] = {{"dtype", "F33", "tensors[t].dtype is \"F33\""},
                        {"shape", 3, "tensors[t].shape is integer"},
                        {"shape", JsonArray{-1}, "tensors[t].shape is -1"},
                        {"sha256", "zz", "tensors[t].sha256 is \"zz\""},
                        {"mean", "NaN", "tensors[t].mean is string"}};
  for (const Edit& edit : edits) {
    INFO(edit.part);
    JsonObject record{
        {"dtype", "F32"}, {"shape", JsonArray{1}}, {"sha256", sha256({}).hex()}, {"mean", 0.5}};
    Json document = to_json(example());
    (*document.as_object())["tensors"] = JsonObject{{"t", record}};
    CHECK(parse_manifest(document, "m.json").tensors.at("t").mean == 0.5);
    record[edit.member] = edit.value;
    (*document.as_object())["tensors"] = JsonObject{{"t", record}};
    require_error(ErrorKind::malformed, edit.part, [&] { parse_manifest(document, "m.json"); });
  }
}

TEST_CASE("a manifest of another schema is unsupported") {
  Json document = to_json(example());
  (*document.as_object())["schema"] = "lora.manifest/2";
  require_error(ErrorKind::unsupported, "lora.manifest/2",
                [&] { parse_manifest(document, "m.json"); });
}

}  // namespace
}  // namespace lora
