// extract: base + adapter are the tuned model but for the stated error, whatever kind of parameter
// changed.
#include <algorithm>
#include <cmath>
#include <set>

#include "ops/extract_sample.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

namespace {

double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape == b.shape);
  const std::vector<double> x = a.to_f64(), y = b.to_f64();
  double squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(squares);
}

bool everything(const std::string&) { return true; }

bool is_projection(const std::string& name) { return name.find("_proj") != std::string::npos; }

}  // namespace

TEST_CASE("at full rank every kind of parameter comes back, in every family") {
  for (const char* kind : {"llama", "llama_tied", "gpt2", "bert", "bert_cls", "mixtral", "mlp"}) {
    INFO(kind);
    TunedPair pair(kind);
    pair.change(everything);
    const ExtractReport report = pair.run(1000);
    REQUIRE(!report.modules.empty());
    REQUIRE(report.is_rounding);
    for (const ExtractedModule& module : report.modules) {
      REQUIRE(module.rank == module.full_rank);
      REQUIRE(module.is_exact);
    }
    const TensorMap merged = pair.applied();
    for (const auto& [name, tensor] : pair.tensors) {
      INFO(name);
      REQUIRE(distance(merged.at(name), tensor) < 3e-6);
    }
    // Nothing for verify to complain about, and the history proves what was made of what.
    const Checkpoint base = open_checkpoint(pair.base.string());
    VerifyOptions options;
    options.adapter = pair.output;
    options.base = &base;
    for (const Finding& finding : lora::verify(options).findings) {
      INFO(finding.rule << " " << finding.message);
      CHECK(finding.severity == Severity::note);
    }
    const Json entry = read_manifest(pair.output)->history.back();
    REQUIRE(*entry.find("operation")->as_string() == "extract");
    REQUIRE(entry.find("inputs")->as_array()->at(1).find("tuned") != nullptr);
  }
}

TEST_CASE("the stated error is that of the factors as written, and no rank does better") {
  for (const char* kind : {"llama", "gpt2"})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TunedPair pair(kind);
      pair.change([](const std::string& name) {
        return name.find("_proj.weight") != std::string::npos ||
               name.find("c_attn.weight") != std::string::npos;
      });
      ExtractOptions options;
      options.rank = 2;
      options.dtype = dtype;
      const ExtractReport report = pair.run(options);
      const TensorMap before = open_checkpoint(pair.base.string()).tensors;
      const TensorMap merged = pair.applied();
      for (const ExtractedModule& module : report.modules) {
        INFO(module.base_name);
        const Tensor& tuned = pair.tensors.at(module.base_name);
        const double norm = distance(before.at(module.base_name), tuned);
        REQUIRE(std::fabs(module.norm - norm) < 1e-5 * norm);
        REQUIRE(std::fabs(module.error * norm - distance(merged.at(module.base_name), tuned)) <
                1e-5 * norm);
        REQUIRE(module.least <= module.error);
        REQUIRE(module.least > (dtype == DType::f32 ? 0.9999 : 0.98) * module.error);
      }
    }
}

TEST_CASE("a merge gives its own update back at its own rank, and the report says so") {
  const fs::path kinds = golden("kinds");
  for (const auto& [name, base] :
       {std::pair("linear", "llama"), std::pair("conv1d", "gpt2"), std::pair("bf16", "mlp-bf16"),
        std::pair("linear_rslora", "llama"), std::pair("bias_lora_only", "gpt2")}) {
    INFO(name);
    TunedPair pair(base);
    const fs::path adapter = kinds / "adapters" / name;
    for (const KindFixture& kind : kind_fixtures())
      if (kind.name == name) pair.base = kind.base;
    merge_kind(adapter, pair.base, pair.directory / "source");
    pair.tensors = open_checkpoint((pair.directory / "source").string()).tensors;
    const Adapter source = open_adapter(adapter);
    std::int64_t rank = 0;
    for (const LoraModule& module : source.modules) rank = std::max(rank, module.rank);
    const ExtractReport report = pair.run(rank);
    REQUIRE(report.is_rounding);
    REQUIRE(report.modules.size() == source.modules.size());
    const TensorMap again = pair.applied();
    for (const auto& [tensor, value] : pair.tensors) {
      INFO(tensor);
      const double ulp = value.dtype == DType::f32 ? 1e-6 : 0.01;
      REQUIRE(distance(again.at(tensor), value) <=
              ulp * distance(value, Tensor::from_f32(value.shape,
                                                     std::vector<float>(static_cast<std::size_t>(
                                                         value.numel())))));
    }
  }
}

TEST_CASE("an embedding that changed in few rows is carried by rows, tied or not") {
  for (const char* kind : {"llama", "llama_tied"}) {
    TunedPair pair(kind);
    pair.change(is_projection);
    const std::string name = "model.embed_tokens.weight";
    std::vector<float> values = pair.tensors.at(name).to_f32();
    values[3 * 8 + 1] += 1;
    values[11 * 8] -= 2;
    pair.tensors[name] = Tensor::from_f32({24, 8}, values);
    const ExtractReport report = pair.run(2);
    REQUIRE(report.adapter.tokens.size() == 1);
    REQUIRE(report.adapter.tokens[0].indices == std::vector<std::int64_t>{3, 11});
    REQUIRE(report.carried.size() == 1);
    REQUIRE(report.carried[0].rows == 2);
    REQUIRE(distance(pair.applied().at(name), pair.tensors.at(name)) == 0);
  }
}

TEST_CASE("a tied embedding that changed in many rows is carried with its head") {
  TunedPair pair("llama_tied");
  pair.change([](const std::string& name) { return name == "model.embed_tokens.weight"; });
  const ExtractReport report = pair.run(2);
  REQUIRE(report.adapter.replacements.contains("lm_head.weight"));
  REQUIRE(report.adapter.replacements.contains("model.embed_tokens.weight"));
  REQUIRE(report.notes.size() == 1);
  REQUIRE(report.notes[0].find("one of zeros") != std::string::npos);
  const TensorMap merged = pair.applied();
  for (const auto& [name, tensor] : pair.tensors)
    REQUIRE(std::ranges::equal(merged.at(name).bytes, tensor.bytes));
}

TEST_CASE("an energy takes the least ranks that keep it, and 1 takes all") {
  TunedPair pair("llama");
  pair.change(is_projection);
  ExtractOptions options;
  options.energy = 0.9;
  std::int64_t ranks = 0, full_ranks = 0;
  for (const ExtractedModule& module : pair.run(options).modules) {
    REQUIRE(module.error * module.error <= 0.1 + 1e-6);
    ranks += module.rank;
    full_ranks += module.full_rank;
  }
  REQUIRE(ranks > 14);
  REQUIRE(ranks < full_ranks - 14);
  fs::remove_all(pair.output);
  options.energy = 1;
  for (const ExtractedModule& module : pair.run(options).modules) {
    REQUIRE(module.rank == module.full_rank);
    REQUIRE(module.error < 1e-6);
  }
}

TEST_CASE("a budget is kept, and spent better than one rank for all") {
  TunedPair pair("llama");
  pair.change(is_projection);
  pair.change([](const std::string& name) { return name.find("layers.0.mlp") != name.npos; }, 1);
  const ExtractReport even = pair.run(2);
  fs::remove_all(pair.output);
  ExtractOptions options;
  options.budget = even.bytes;
  const ExtractReport report = pair.run(options);
  REQUIRE(report.bytes <= even.bytes);
  REQUIRE(report.bytes > even.bytes - 100);
  REQUIRE(report.error < 0.9 * even.error);
  std::set<std::int64_t> ranks;
  for (const ExtractedModule& module : report.modules) ranks.insert(module.rank);
  REQUIRE(ranks.size() > 1);
  options.budget = 40;
  options.force = true;
  require_error(ErrorKind::usage, "for one component", [&] { pair.run(options); });
}

TEST_CASE("dtypes of the two may differ; symlinked shards are files") {
  TunedPair pair("llama");
  pair.change(is_projection);
  for (auto& [name, tensor] : pair.tensors) tensor = tensor.cast(DType::f64);
  const ExtractReport report = pair.run(1000);
  REQUIRE(report.unchanged == 7);
  REQUIRE(report.error < 1e-6);
  const fs::path linked = pair.directory / "linked";
  fs::create_directories(linked);
  for (const char* file : {"model.safetensors", "config.json"})
    fs::create_symlink(pair.tuned / file, linked / file);
  const Checkpoint from = open_checkpoint(pair.base.string());
  const Checkpoint to = open_checkpoint(linked.string());
  ExtractOptions options;
  options.base = &from;
  options.tuned = &to;
  options.rank = 1000;
  options.output = pair.directory / "again";
  extract(options);
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json"})
    REQUIRE(read_file(pair.output / file) == read_file(options.output / file));
}

TEST_CASE("an extraction does not depend on threads or work space") {
  TunedPair pair("llama");
  pair.change(everything);
  pair.write_tuned();
  const Checkpoint from = open_checkpoint(pair.base.string());
  const Checkpoint to = open_checkpoint(pair.tuned.string());
  std::set<std::string> files;
  for (const int threads : {1, 3})
    for (const std::uint64_t memory : {1U, 1'000'000'000U}) {
      ExtractOptions options;
      options.base = &from;
      options.tuned = &to;
      options.rank = 3;
      options.threads = threads;
      options.max_memory = memory;
      options.output = pair.output;
      options.force = true;
      extract(options);
      files.insert(read_file(pair.output / "adapter_model.safetensors"));
    }
  REQUIRE(files.size() == 1);
}
