// What extract refuses, by name and without a trace.
#include <limits>

#include "ops/extract_sample.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

namespace {

bool is_projection(const std::string& name) { return name.find("_proj") != std::string::npos; }

Tensor with(const Tensor& tensor, float value) {
  std::vector<float> values = tensor.to_f32();
  values[5] = value;
  return Tensor::from_f32(tensor.shape, values);
}

}  // namespace

TEST_CASE("shapes, names and dtypes that differ are refused together") {
  TunedPair pair("llama");
  pair.change(is_projection);
  const TensorMap sound = pair.tensors;
  pair.tensors["model.embed_tokens.weight"] = normal_tensor("e", {25, 8});
  pair.tensors.erase("model.norm.weight");
  pair.tensors["extra.weight"] = normal_tensor("x", {2, 2});
  require_error(ErrorKind::incompatible, "model.embed_tokens.weight is [24, 8] in the base and",
                [&] { pair.run(2); });
  require_error(ErrorKind::incompatible, "model.norm.weight is missing in the tuned checkpoint",
                [&] { pair.run(2); });
  require_error(ErrorKind::incompatible, "extra.weight is missing in the base",
                [&] { pair.run(2); });
  pair.tensors = sound;
  pair.tensors["model.norm.weight"] =
      Tensor::from_i64({8}, std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8});
  require_error(ErrorKind::incompatible, "model.norm.weight is F32 in the base and I64",
                [&] { pair.run(2); });
  REQUIRE(!fs::exists(pair.output));
}

TEST_CASE("values that are not finite are refused by name, in factors and in what is carried") {
  for (const char* name : {"model.layers.0.mlp.up_proj.weight", "model.norm.weight"})
    for (const float value :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      INFO(name);
      TunedPair pair("llama");
      pair.change(is_projection);
      pair.tensors[name] = with(pair.tensors.at(name), value);
      require_error(
          ErrorKind::malformed,
          std::string("cannot extract from ") + name + ": the tuned tensor holds NaN or infinity",
          [&] { pair.run(2); });
      // The other way round it is the base's.
      pair.write_tuned();
      const Checkpoint from = open_checkpoint(pair.tuned.string());
      const Checkpoint to = open_checkpoint(pair.base.string());
      ExtractOptions options;
      options.base = &from;
      options.tuned = &to;
      options.rank = 2;
      options.output = pair.output;
      require_error(ErrorKind::malformed, "the base's tensor holds NaN or infinity",
                    [&] { extract(options); });
      REQUIRE(!fs::exists(pair.output));
    }
}

TEST_CASE("equal checkpoints hold nothing to extract, and neither do excluded changes alone") {
  TunedPair pair("llama");
  require_error(ErrorKind::incompatible, "it holds the same weights as", [&] { pair.run(2); });
  pair.change([](const std::string& name) { return name == "model.norm.weight"; });
  ExtractOptions options;
  options.rank = 2;
  options.exclude_modules = {"norm"};
  require_error(ErrorKind::incompatible, "all that changed is in excluded modules",
                [&] { pair.run(options); });
  // A typo must not leave in what was meant to stay out.
  options.exclude_modules = {"orm"};
  require_error(ErrorKind::usage, "--exclude-modules orm matches no module",
                [&] { pair.run(options); });
}

TEST_CASE("ranks, energies and budgets out of range are refused before anything is read") {
  TunedPair pair("llama");
  pair.change(is_projection);
  const auto refuse = [&](const std::string& message, auto set) {
    ExtractOptions options;
    set(options);
    require_error(ErrorKind::usage, message, [&] { pair.run(options); });
  };
  refuse("expected exactly one", [](ExtractOptions&) {});
  refuse("expected exactly one", [](ExtractOptions& o) { o.rank = 2, o.energy = 0.5; });
  refuse("--energy is 0.000000", [](ExtractOptions& o) { o.energy = 0; });
  refuse("--energy is 1.5", [](ExtractOptions& o) { o.energy = 1.5; });
  refuse("--rank is 0", [](ExtractOptions& o) { o.rank = 0; });
  refuse("--budget allows 0", [](ExtractOptions& o) { o.budget = 0; });
  ExtractOptions tall;
  tall.rank = 9;
  const ExtractReport report = pair.run(tall);
  REQUIRE(report.notes.size() == 1);
  REQUIRE(report.notes[0].find("have a full rank below 9") != std::string::npos);
}

TEST_CASE("an output that is or holds an input is refused") {
  TunedPair pair("llama");
  pair.change(is_projection);
  pair.write_tuned();
  const Checkpoint from = open_checkpoint(pair.base.string());
  const Checkpoint to = open_checkpoint(pair.tuned.string());
  ExtractOptions options;
  options.base = &from;
  options.tuned = &to;
  options.rank = 2;
  options.force = true;
  for (const fs::path& output : {pair.tuned, pair.directory.path(), pair.base}) {
    options.output = output;
    require_error(ErrorKind::usage, "cannot extract to", [&] { extract(options); });
  }
  options.force = false;
  options.output = pair.output;
  extract(options);
  require_error(ErrorKind::output, "exists", [&] { extract(options); });
}

TEST_CASE("a disk that fills up at any byte of an extraction leaves nothing") {
  TunedPair pair("llama");
  pair.change(is_projection);
  FaultyFileSystem counting;
  ExtractOptions options;
  options.rank = 2;
  options.file_system = &counting;
  pair.run(options);
  const std::uint64_t all = std::numeric_limits<std::uint64_t>::max() - counting.bytes_until_full;
  fs::remove_all(pair.output);
  for (std::uint64_t bytes = 0; bytes < all; bytes += all / 17 + 1) {
    FaultyFileSystem full;
    full.bytes_until_full = bytes;
    options.file_system = &full;
    require_error(ErrorKind::output, "", [&] { pair.run(options); });
    REQUIRE(entry_count(pair.directory.path()) == 1);
  }
}
