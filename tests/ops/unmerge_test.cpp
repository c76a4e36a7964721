// unmerge: the base's bytes where they are proven, a bound and a refusal where they are not.
#include "lora/ops/unmerge.h"

#include <cmath>

#include "lora/base/equal_bytes.h"
#include "ops/written_merge.h"
#include "support/faulty_file_system.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Round : ShardedSample {
  fs::path restored = directory / "restored";

  explicit Round(DType wanted, double update) : ShardedSample(wanted, update) {}

  UnmergeReport undo(UnmergeOptions options = {}) const {
    const Checkpoint sum = open_checkpoint(output.string());
    options.merged = &sum;
    options.adapters.push_back({open_adapter(adapter_folder), 1});
    options.output = restored;
    options.threads = 2;
    return unmerge(options);
  }

  // Steps between restored and original values: at most the bound that the report gives.
  void require_bound(const UnmergeReport& report) const {
    const TensorMap again = open_checkpoint(restored.string()).tensors;
    for (const RestoredTensor& tensor : report.tensors) {
      const std::vector<float> a = again.at(tensor.base_name).to_f32();
      const std::vector<float> b = base.at(tensor.base_name).to_f32();
      std::int64_t different = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        const int precision = dtype == DType::bf16 ? 8 : dtype == DType::f16 ? 11 : 24;
        const double step = std::ldexp(1.0, std::ilogb(a[i]) - precision + 1);
        REQUIRE(std::fabs(a[i] - b[i]) <= tensor.worst_ulps * step);
        different += a[i] != b[i] ? 1 : 0;
      }
      REQUIRE(different <= tensor.uncertain + 2);  // ties beside
    }
  }
};

}  // namespace

TEST_CASE("a small update comes out of 16 bits exactly, and the digests prove it") {
  Round round(DType::bf16, 0.004);
  round.run();
  const UnmergeReport report = round.undo();
  REQUIRE(report.is_exact);
  REQUIRE(report.recorded_in == "lora_merge.json");
  REQUIRE(report.tensors.size() == 2);
  const TensorMap again = open_checkpoint(round.restored.string()).tensors;
  for (const auto& [name, tensor] : round.base)
    REQUIRE(std::ranges::equal(again.at(name).bytes, tensor.bytes));
  REQUIRE(!fs::exists(round.restored / "lora_merge.json"));
  REQUIRE(read_base_lock(round.restored / kBaseLockName).root == report.root.value());
  for (const char* name : {"config.json", "model.safetensors.index.json"})
    REQUIRE(text_of(round.restored / name) == text_of(round.output / name));
}

TEST_CASE("what is not proven is refused with its bound, and written when that is allowed") {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Round round(dtype, 0.6);
    round.run();
    const Error error = failure_of([&] { round.undo(); });
    REQUIRE(error.kind() == ErrorKind::incompatible);
    REQUIRE(error.message().find("ulp of the base's") != std::string::npos);
    REQUIRE(error.message().find("lora_merge.json records") != std::string::npos);
    REQUIRE(!fs::exists(round.restored));
    UnmergeOptions options;
    options.allow_inexact = true;
    const UnmergeReport report = round.undo(options);
    REQUIRE(!report.is_exact);
    REQUIRE(report.uncertain > 0);
    round.require_bound(report);
  }
}

TEST_CASE("a merge into f32 gives a base of 16 bits back whatever the update") {
  Round round(DType::bf16, 0.6);
  MergeOptions wide;
  wide.dtype = DType::f32;
  round.run(wide);
  UnmergeOptions options;
  options.dtype = DType::bf16;
  REQUIRE(round.undo(options).is_exact);
  const TensorMap again = open_checkpoint(round.restored.string()).tensors;
  for (const auto& [name, tensor] : round.base)
    REQUIRE(std::ranges::equal(again.at(name).bytes, tensor.bytes));
}

TEST_CASE("the proof may come from the adapter's manifest or a lock, or be missing") {
  Round round(DType::bf16, 0.004);
  round.run();
  fs::remove(round.output / "lora_merge.json");
  const Error error = failure_of([&] { round.undo(); });
  REQUIRE(error.message().find("nothing records the base") != std::string::npos);
  const BaseLock lock = compute_base_lock(open_checkpoint(round.base_folder.string()), 1);
  UnmergeOptions options;
  options.base_lock = lock;
  REQUIRE(round.undo(options).recorded_in == kBaseLockName);
  fs::remove_all(round.restored);
  Manifest manifest = make_manifest(open_adapter(round.adapter_folder), 1);
  manifest.base_root = lock.root;
  for (const char* name : {"up.weight", "square.weight"})
    manifest.base_tensors[name] = lock.tensors.at(name).digest;
  write_file(round.adapter_folder / kManifestName, dump_json(to_json(manifest)));
  REQUIRE(round.undo().recorded_in == kManifestName);
  fs::remove_all(round.restored);
  options.base_lock->root = Digest();
  require_error(ErrorKind::incompatible, "the given lock is of", [&] { round.undo(options); });
}

TEST_CASE("the bias of an update is restored and proven like its matrix") {
  for (const double change : {0.004, 0.6}) {
    Round round(DType::bf16, 0.004);
    round.config.lora_bias = true;
    for (const std::string module : {"up", "square"}) {
      round.base[module + ".bias"] = normal_tensor(module + "bias", {24}).cast(round.dtype);
      round.adapter["base_model.model." + module + ".lora_B.bias"] =
          normal_tensor(module + "change", {24}, change);
    }
    write_sample(round.adapter_folder, round.config, round.adapter);
    round.write_base();
    round.run();
    Manifest manifest = make_manifest(open_adapter(round.adapter_folder), 1);
    const BaseLock lock = compute_base_lock(open_checkpoint(round.base_folder.string()), 1);
    manifest.base_root = lock.root;
    for (const auto& [name, tensor] : lock.tensors) manifest.base_tensors[name] = tensor.digest;
    write_file(round.adapter_folder / kManifestName, dump_json(to_json(manifest)));
    fs::remove(round.output / "lora_merge.json");
    if (change < 0.1) {
      REQUIRE(round.undo().tensors.size() == 4);
      continue;
    }
    // The matrices come out exactly; the bias, changed by more than it was, does not.
    require_error(ErrorKind::incompatible, " of 4 restored tensors have another digest",
                  [&] { round.undo(); });
    UnmergeOptions options;
    options.allow_inexact = true;
    const UnmergeReport report = round.undo(options);
    REQUIRE(!report.is_exact);
    round.require_bound(report);
  }
}

TEST_CASE("other adapters than the recorded ones and what cannot be subtracted are refused") {
  Round round(DType::bf16, 0.004);
  round.run();
  const Checkpoint merged = open_checkpoint(round.output.string());
  UnmergeOptions options;
  options.merged = &merged;
  options.output = round.restored;
  options.adapters.push_back({open_adapter(round.adapter_folder), 0.5});
  require_error(ErrorKind::incompatible, "records other adapters, weights",
                [&] { unmerge(options); });
  options.adapters.clear();
  require_error(ErrorKind::usage, "no adapter", [&] { unmerge(options); });
  const fs::path kinds = golden("kinds");
  for (const auto& [name, part] :
       {std::pair("modules_to_save", "lm_head.weight"), std::pair("tokens_list", "rows of"),
        std::pair("linear_dora", "DoRA scales")}) {
    const Checkpoint base = open_checkpoint((kinds / "bases/llama").string());
    UnmergeOptions other;
    other.merged = &base;
    other.output = round.restored;
    other.adapters.push_back({open_adapter(kinds / "adapters" / name), 1});
    require_error(ErrorKind::unsupported, part, [&] { unmerge(other); });
  }
  options.adapters.push_back({open_adapter(round.adapter_folder), 1});
  options.force = true;
  options.output = round.output;
  require_error(ErrorKind::usage, "", [&] { unmerge(options); });
  REQUIRE(!fs::exists(round.restored));
}

TEST_CASE("a disk that fills up at any byte of an unmerge leaves nothing") {
  Round round(DType::bf16, 0.004);
  round.run();
  FaultyFileSystem counting;
  UnmergeOptions options;
  options.file_system = &counting;
  round.undo(options);
  const std::uint64_t all = std::numeric_limits<std::uint64_t>::max() - counting.bytes_until_full;
  fs::remove_all(round.restored);
  const std::size_t before = entry_count(round.directory.path());
  for (std::uint64_t bytes = 0; bytes < all; bytes += all / 11 + 1) {
    FaultyFileSystem full;
    full.bytes_until_full = bytes;
    options.file_system = &full;
    require_error(ErrorKind::output, "", [&] { round.undo(options); });
    REQUIRE(entry_count(round.directory.path()) == before);
  }
}

namespace {

// A kind that PEFT wrote on the tied base, merged into it and taken out again.
struct TiedRound {
  TempDir directory;
  fs::path base = golden("kinds") / "bases/llama_tied", merged = directory / "merged",
           restored = directory / "restored";
  fs::path adapter;

  explicit TiedRound(const std::string& name) : adapter(golden("kinds") / "adapters" / name) {
    merge_kind(adapter, base, merged);
  }

  UnmergeReport plan() const { return undo(false, std::nullopt, true); }

  UnmergeReport undo(bool allow_inexact = false, std::optional<DType> dtype = std::nullopt,
                     bool dry_run = false) const {
    const Checkpoint sum = open_checkpoint(merged.string());
    UnmergeOptions options;
    options.merged = &sum;
    options.dtype = dtype;
    options.dry_run = dry_run;
    options.adapters.push_back({open_adapter(adapter), 1});
    options.output = restored;
    options.allow_inexact = allow_inexact;
    options.threads = 2;
    return unmerge(options);
  }

  void require_tied() const {
    const Checkpoint from = open_checkpoint(base.string()), to = open_checkpoint(restored.string());
    REQUIRE(to.aliases == from.aliases);
    REQUIRE(!read_safetensors(restored / "model.safetensors").tensors.contains("lm_head.weight"));
    REQUIRE(read_json_file(restored / "config.json").find("tie_word_embeddings")->as_bool() ==
            true);
    REQUIRE(has_equal_bytes(to.tensors.at("model.embed_tokens.weight"),
                            from.tensors.at("model.embed_tokens.weight")));
  }
};

}  // namespace

TEST_CASE("weights that an adapter brought along are restored from there, and ties with them") {
  TiedRound round("tied_independent");
  REQUIRE(open_checkpoint(round.merged.string()).aliases.empty());
  const UnmergeReport report = round.undo();
  REQUIRE(report.is_exact);
  REQUIRE(report.notes.size() == 1);
  round.require_tied();
  const Checkpoint base = open_checkpoint(round.base.string());
  REQUIRE(report.root.value() == compute_base_lock(base, 1).root);
  // Without a record nothing says what the two were.
  fs::remove(round.merged / "lora_merge.json");
  fs::remove_all(round.restored);
  const Error error = failure_of([&] { round.undo(); });
  REQUIRE(error.kind() == ErrorKind::incompatible);
  REQUIRE(error.message().find("nothing records the base") != std::string::npos);
  REQUIRE(error.message().find("2 tensors are copies of the base's that the adapters hold") !=
          std::string::npos);
  const UnmergeReport planned = round.plan();
  REQUIRE(std::ranges::count(planned.tensors, true, &RestoredTensor::is_copy) == 2);
}

TEST_CASE("a copy that does not give the merge with its update is named") {
  TiedRound round("tied_independent");
  fs::remove(round.merged / "lora_merge.json");
  const std::string doubt =
      "with its update the copy of model.embed_tokens.weight does not give what the merge holds";
  const auto doubts = [&](const UnmergeReport& report) {
    std::vector<std::string> named;
    for (const RestoredTensor& tensor : report.tensors)
      if (tensor.gives_merge == false) named.push_back(tensor.base_name);
    return named;
  };
  const UnmergeReport sound = round.undo(true);
  REQUIRE_FALSE(sound.is_exact);
  REQUIRE(sound.notes.empty());
  REQUIRE(doubts(sound).empty());
  fs::remove_all(round.restored);
  const fs::path other = round.directory / "other";
  fs::copy(round.adapter, other);
  TensorMap tensors = read_safetensors(other / "adapter_model.safetensors").tensors;
  const std::string name = "base_model.model.model.embed_tokens.base_layer.weight";
  std::vector<float> values = tensors.at(name).to_f32();
  values[5] += 0.5F;
  tensors[name] = Tensor::from_f32(tensors.at(name).shape, values);
  MergeSample::write(other / "adapter_model.safetensors", tensors);
  round.adapter = other;
  require_error(ErrorKind::incompatible, doubt, [&] { round.undo(); });
  REQUIRE_FALSE(fs::exists(round.restored));
  const UnmergeReport foreign = round.undo(true);
  REQUIRE(doubts(foreign) == std::vector<std::string>{"model.embed_tokens.weight"});
  REQUIRE(foreign.notes.size() == 1);
  REQUIRE(foreign.notes[0].find(doubt) != std::string::npos);
}

TEST_CASE("a twin that the merge rounded does not replace an exact copy, and has its bound") {
  for (const bool has_copy : {true, false}) {
    INFO("with the embedding's copy " << has_copy);
    TiedRound round("tied_independent");
    const fs::path own = round.directory / "own";
    fs::copy(round.adapter, own);
    TensorMap tensors = read_safetensors(own / "adapter_model.safetensors").tensors;
    std::erase_if(tensors, [&](const auto& entry) {
      const bool is_copy = entry.first.find("base_layer") != std::string::npos;
      return entry.first.find("lm_head") != std::string::npos || (is_copy && !has_copy);
    });
    MergeSample::write(own / "adapter_model.safetensors", tensors);
    Json document = read_json_file(own / "adapter_config.json");
    (*document.as_object())["target_modules"] = JsonArray{Json("embed_tokens")};
    write_file(own / "adapter_config.json", dump_json(document));
    round.adapter = own;
    round.merged = round.directory / "low";
    MergeOptions options;
    options.dtype = DType::bf16;
    merge_kind(own, round.base, round.merged, options);
    const UnmergeReport report = round.undo(true, DType::f32);
    REQUIRE_FALSE(report.is_exact);  // the other weights were rounded
    REQUIRE(report.tensors.size() == 1);
    REQUIRE(report.tensors[0].is_copy == has_copy);
    const std::string name = "model.embed_tokens.weight";
    const Tensor base = open_checkpoint(round.base.string()).tensors.at(name);
    const Tensor restored = open_checkpoint(round.restored.string()).tensors.at(name);
    if (has_copy) {
      REQUIRE(has_equal_bytes(base, restored));
      continue;
    }
    const std::vector<float> x = base.to_f32(), y = restored.to_f32();
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::max(worst, std::fabs(x[i] - y[i]) / (std::ldexp(1.0, std::ilogb(y[i])) *
                                                        std::numeric_limits<float>::epsilon()));
    REQUIRE(worst > 1000);
    REQUIRE(worst <= report.tensors[0].worst_ulps);
    REQUIRE(report.tensors[0].uncertain == base.numel());
  }
}

TEST_CASE("a matrix that the merge untied in a wider dtype is tied again in the base's") {
  for (const char* kind : {"tied_head_only", "tied_independent"}) {
    INFO(kind);
    TiedRound round(kind);
    const Checkpoint wide = open_checkpoint(round.base.string());
    TensorMap low;
    for (const auto& [name, tensor] : wide.tensors) low[name] = tensor.cast(DType::bf16);
    round.base = round.directory / "low";
    fs::create_directory(round.base);
    fs::copy_file(wide.directory / "config.json", round.base / "config.json");
    MergeSample::write(round.base / "model.safetensors", low);
    round.merged = round.directory / "wide";
    MergeOptions options;
    options.dtype = DType::f32;
    merge_kind(round.adapter, round.base, round.merged, options);
    const UnmergeReport report = round.undo(false, DType::bf16);
    REQUIRE(report.is_exact);
    round.require_tied();
  }
}

TEST_CASE("where a merge untied a head to change it, the embedding is the base's matrix") {
  TiedRound round("tied_head_only");
  REQUIRE(failure_of([&] { round.undo(); }).kind() == ErrorKind::incompatible);
  const UnmergeReport report = round.undo(true);
  REQUIRE(!report.is_exact);
  round.require_tied();
  for (const RestoredTensor& tensor : report.tensors)
    REQUIRE(tensor.base_name.find("q_proj") != std::string::npos);
}

TEST_CASE("a root that contradicts the result is no proof, whatever the touched tensors say") {
  TiedRound round("tied_independent");
  // The head's twin was changed after the merge, and nothing is subtracted from it.
  TensorMap tensors = read_safetensors(round.merged / "model.safetensors").tensors;
  std::vector<float> values = tensors.at("model.norm.weight").to_f32();
  values[0] += 1;
  tensors["model.norm.weight"] = Tensor::from_f32(tensors.at("model.norm.weight").shape, values);
  MergeSample::write(round.merged / "model.safetensors", tensors);
  const Error error = failure_of([&] { round.undo(); });
  REQUIRE(error.kind() == ErrorKind::incompatible);
  INFO(error.message());
  REQUIRE(error.message().find("the root is not the one") != std::string::npos);
}

TEST_CASE("a record that unties what no configuration ties changes nothing") {
  for (const auto& [name, canonical] :
       {std::pair("lm_head.weight", "lm_head.weight"), std::pair("lm_head.weight", "missing"),
        std::pair("model.layers.0.self_attn.o_proj.weight",
                  "model.layers.1.self_attn.o_proj.weight"),
        std::pair("model.embed_tokens.weight", "lm_head.weight"),
        std::pair("lm_head.weight", "model.norm.weight")}) {
    INFO(name << " " << canonical);
    TiedRound round("tied_head_only");
    Json document = read_json_file(round.merged / "lora_merge.json");
    JsonObject changed = *document.as_object();
    changed["untied"] = JsonObject{{name, canonical}};
    write_file(round.merged / "lora_merge.json", dump_json(changed));
    const UnmergeReport report = round.undo(true);
    REQUIRE(!report.is_exact);
    REQUIRE(report.notes.empty());
    const Checkpoint merged = open_checkpoint(round.merged.string());
    const Checkpoint restored = open_checkpoint(round.restored.string());
    REQUIRE(restored.tensors.size() == merged.tensors.size());
    for (const std::string kept : {"model.embed_tokens.weight", "model.norm.weight"})
      REQUIRE(has_equal_bytes(restored.tensors.at(kept), merged.tensors.at(kept)));
  }
}
