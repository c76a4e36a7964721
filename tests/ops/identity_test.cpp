// Which base an adapter belongs to: LV501 to LV510, and what is hashed to know it.
#include <algorithm>

#include "lora/checkpoint/tokenizer_files.h"
#include "lora/format/safetensors.h"
#include "lora/ops/save.h"
#include "lora/ops/verify.h"
#include "ops/base_evidence.h"
#include "ops/base_identity.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

struct Pair {
  TempDir directory;
  fs::path base_path = directory / "base";
  Checkpoint base = sample_base(base_path);
  fs::path adapter = directory / "adapter";
  bool full = false, require_proof = false;

  Pair() { write_sample(adapter, sample_config(), sample_tensors(), &base); }

  VerifyReport run() {
    base = open_checkpoint(base_path.string());
    VerifyOptions options;
    options.adapter = adapter;
    options.base = &base;
    options.full = full;
    options.require_proof = require_proof;
    return verify(options);
  }
  void forget_record() { fs::remove(adapter / kManifestName); }
  void forget_lock() { fs::remove(base_path / kBaseLockName); }
  void change_base(const std::string& name) {
    TensorMap tensors = base.tensors;
    tensors.at(name) = normal_tensor("changed", tensors.at(name).shape);
    write_safetensors(base_path / "model.safetensors", tensors, &pytorch_metadata(),
                      WriteOptions{true, nullptr});
  }
  void write_config(const AdapterConfig& config) {
    write_file(adapter / kAdapterConfigName, dump_adapter_config(config));
  }
  void edit_base_config(const std::string& member, const Json& value) {
    Json document = read_json_file(base_path / "config.json");
    (*document.as_object())[member] = value;
    write_file(base_path / "config.json", dump_json(document));
  }
};

const Finding* find_rule(const VerifyReport& report, std::string_view rule) {
  const auto found = std::find_if(report.findings.begin(), report.findings.end(),
                                  [&](const Finding& finding) { return finding.rule == rule; });
  return found == report.findings.end() ? nullptr : &*found;
}

Finding require_rule(const VerifyReport& report, std::string_view rule, std::string_view part) {
  const Finding* finding = find_rule(report, rule);
  INFO("rule " << rule);
  REQUIRE(finding != nullptr);
  INFO(finding->message);
  REQUIRE(finding->message.find(part) != std::string::npos);
  return *finding;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string detail_of(const VerifyReport& report, std::string_view name) {
  for (const CheckResult& check : report.checks)
    if (check.name == name) return check.detail;
  return "";
}

constexpr std::string_view kTokenizer = R"({"added_tokens": [{"id": 2, "content": "<s>"}],
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})";

}  // namespace

TEST_CASE("with a lock only the targeted tensors are hashed, and the reason says so") {
  Pair pair;
  const auto identity = identify_base(pair.base, read_manifest(pair.adapter), false, 1, {});
  REQUIRE(!identity.is_whole);
  REQUIRE(identity.hashed.size() == 2);
  REQUIRE(identity.hashed.contains("fc1.weight"));
  REQUIRE(identity.root == read_base_lock(pair.base_path / kBaseLockName).root);
  const VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::proven);
  REQUIRE(has(report.verdict_reason,
              "2 targeted tensors hashed, base.lock.json vouches for the other 2"));
}

TEST_CASE("full hashes every tensor, and so does a base without a lock") {
  Pair pair;
  pair.full = true;
  REQUIRE(has(pair.run().verdict_reason, "all 4 tensors hashed"));
  pair.full = false;
  pair.forget_lock();
  const VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::proven);
  REQUIRE(has(report.verdict_reason, "all 4 tensors hashed"));
}

TEST_CASE("nothing is hashed for an adapter that records no base") {
  Pair pair;
  pair.forget_record();
  REQUIRE(identify_base(pair.base, std::nullopt, false, 1, {}).hashed.empty());
  const VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::plausible);
  REQUIRE(has(detail_of(report, "base"), "names and shapes only"));
  REQUIRE(identify_base(pair.base, std::nullopt, true, 1, {}).hashed.size() == 4);
}

TEST_CASE("a changed targeted tensor contradicts the record, with and without a lock") {
  Pair pair;
  pair.change_base("fc1.weight");
  const VerifyReport with_lock = pair.run();
  REQUIRE(with_lock.verdict == Verdict::contradicted);
  require_rule(with_lock, "LV501", "1 of 2 targeted tensors differ: fc1.weight");
  require_rule(with_lock, "LV503", "fc1.weight");
  pair.forget_lock();
  const VerifyReport without = pair.run();
  require_rule(without, "LV501", "1 of 2 targeted tensors differ: fc1.weight");
  REQUIRE(find_rule(without, "LV503") == nullptr);
}

TEST_CASE("a change outside the targets is found where the tensor is hashed") {
  Pair pair;
  pair.change_base("fc2.bias");
  REQUIRE(pair.run().verdict == Verdict::proven);  // the lock vouches, and the reason says so
  pair.full = true;
  const VerifyReport full = pair.run();
  require_rule(full, "LV503", "fc2.bias");
  require_rule(full, "LV501", "the targeted tensors are equal, others differ");
  pair.full = false;
  pair.forget_lock();
  require_rule(pair.run(), "LV501", "the targeted tensors are equal, others differ");
}

TEST_CASE("shapes and names that contradict the lock need no hash") {
  Pair pair;
  pair.forget_record();
  TensorMap tensors = pair.base.tensors;
  tensors.erase("fc2.bias");
  tensors["extra"] = normal_tensor("extra", {3});
  write_safetensors(pair.base_path / "model.safetensors", tensors, &pytorch_metadata(),
                    WriteOptions{true, nullptr});
  const Finding finding = require_rule(pair.run(), "LV503", "fc2.bias (missing)");
  REQUIRE(has(finding.message, "extra (added)"));
}

TEST_CASE("a base locked under another root is another base") {
  Pair pair;
  const Checkpoint other = sample_base(pair.directory / "other", 7);
  pair.base_path = pair.directory / "other";
  const VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::contradicted);
  require_rule(report, "LV501", "(by its base.lock.json)");
  REQUIRE(find_rule(report, "LV503") == nullptr);
}

TEST_CASE("LV504: no name and a local path are notes, errors where proof is required") {
  Pair pair;
  pair.forget_record();
  require_rule(pair.run(), "LV504", "names no base");
  AdapterConfig config = sample_config();
  for (const char* path : {"/tmp/base", "/data/models/llama", "./base", "../base", "C:\\models"}) {
    config.base_model_name_or_path = path;
    pair.write_config(config);
    REQUIRE(require_rule(pair.run(), "LV504", path).severity == Severity::note);
  }
  pair.require_proof = true;
  REQUIRE(require_rule(pair.run(), "LV504", "local path").severity == Severity::error);
  config.base_model_name_or_path = "org/name";
  pair.write_config(config);
  const VerifyReport named = pair.run();
  REQUIRE(find_rule(named, "LV504") == nullptr);
  REQUIRE(require_rule(named, "LV505", "revision of org/name").severity == Severity::error);
}

TEST_CASE("a record of the base settles its name: no note, and no error where proof is required") {
  Pair pair;
  AdapterConfig config = sample_config();
  config.base_model_name_or_path = "/tmp/base";
  write_sample(pair.adapter, config, sample_tensors(), &pair.base);
  pair.require_proof = true;
  const VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::proven);
  REQUIRE(report.findings.empty());
}

TEST_CASE("LV506: a quantised base is a note") {
  Pair pair;
  REQUIRE(find_rule(pair.run(), "LV506") == nullptr);
  pair.edit_base_config("quantization_config", JsonObject{{"quant_method", "gptq"}});
  REQUIRE(require_rule(pair.run(), "LV506", "gptq").severity == Severity::note);
}

TEST_CASE("LV507: names are compared whole, in the cache and in config.json") {
  Pair pair;
  pair.forget_record();
  AdapterConfig config = sample_config();
  config.base_model_name_or_path = "org/model-7b";
  pair.write_config(config);
  REQUIRE(find_rule(pair.run(), "LV507") == nullptr);  // a local folder has no name
  pair.edit_base_config("_name_or_path", "org/model-7b-chat");
  REQUIRE(require_rule(pair.run(), "LV507", "org/model-7b-chat").severity == Severity::note);
  pair.edit_base_config("_name_or_path", "org/model-7b");
  REQUIRE(find_rule(pair.run(), "LV507") == nullptr);
  const std::string commit(40, 'b');
  const fs::path snapshot = pair.directory / "hub/models--org--model-7b/snapshots" / commit;
  fs::create_directories(snapshot.parent_path());
  fs::rename(pair.base_path, snapshot);
  pair.base_path = snapshot;
  const VerifyReport same = pair.run();
  REQUIRE(find_rule(same, "LV507") == nullptr);
  REQUIRE(has(detail_of(same, "base"), "equal: name"));
  config.revision = std::string(40, 'c');
  pair.write_config(config);
  require_rule(pair.run(), "LV507", "revision " + std::string(40, 'c'));
  config.revision = commit;
  pair.write_config(config);
  REQUIRE(has(detail_of(pair.run(), "base"), "name, revision"));
  config.base_model_name_or_path = "other/model-7b";
  pair.write_config(config);
  require_rule(pair.run(), "LV507", "names the base other/model-7b, the given one is org/model-7b");
}

TEST_CASE("LV508: tokenizers that differ say how; formatting is no difference") {
  Pair pair;
  write_file(pair.base_path / kTokenizerName, kTokenizer);
  write_file(pair.adapter / kTokenizerName, kTokenizer);
  VerifyReport report = pair.run();
  REQUIRE(find_rule(report, "LV508") == nullptr);
  write_file(pair.adapter / kTokenizerName, std::string(kTokenizer) + "\n");
  REQUIRE(find_rule(pair.run(), "LV508") == nullptr);
  write_file(pair.adapter / kTokenizerName,
             R"({"added_tokens": [{"id": 2, "content": "<s>"}, {"id": 3, "content": "<pad>"}],
                 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})");
  Finding finding = require_rule(pair.run(), "LV508", "has 4 tokens, the base's 3");
  REQUIRE(has(finding.message, "1 only in the adapter's: <pad>"));
  REQUIRE(finding.severity == Severity::note);
  write_file(pair.adapter / kTokenizerName,
             R"({"model": {"type": "BPE", "vocab": {"a": 1, "b": 0, "<s>": 2}}})");
  finding = require_rule(pair.run(), "LV508", "2 with another id: a, b");
  REQUIRE(finding.severity == Severity::warning);
}

TEST_CASE("LV508: a Unigram vocabulary is a list whose positions are the ids") {
  TempDir directory;
  write_file(directory / "a.json", R"({"model": {"vocab": [["x", -1.5], ["y", -2]]}})");
  write_file(directory / "b.json", R"({"model": {"vocab": [["y", -2], ["x", -1.5], ["z", -3]]}})");
  const TokenizerDifference difference =
      compare_tokenizers(directory / "a.json", directory / "b.json");
  REQUIRE(difference.tokens_a == 2);
  REQUIRE(difference.tokens_b == 3);
  REQUIRE(difference.only_in_b == std::vector<std::string>{"z"});
  REQUIRE(difference.renumbered == std::vector<std::string>{"x", "y"});
  write_file(directory / "b.json", "{");
  require_error(ErrorKind::malformed, "no JSON",
                [&] { compare_tokenizers(directory / "a.json", directory / "b.json"); });
}

TEST_CASE("LV509: chat templates are compared wherever they lie") {
  Pair pair;
  write_file(pair.base_path / kChatTemplateName, "{{ x }}");
  write_file(pair.adapter / kTokenizerConfigName, R"({"chat_template": "{{ x }}"})");
  REQUIRE(find_rule(pair.run(), "LV509") == nullptr);
  write_file(pair.adapter / kTokenizerConfigName, R"({"chat_template": "{{ x }}!"})");
  REQUIRE(
      require_rule(pair.run(), "LV509", "of 8 characters, the base has another of 7").severity ==
      Severity::note);
  fs::remove(pair.base_path / kChatTemplateName);
  require_rule(pair.run(), "LV509", "the base has none");
}

TEST_CASE("save records tokenizer and chat template of the base, and verify misses them") {
  Pair pair;
  write_file(pair.base_path / kTokenizerName, kTokenizer);
  write_file(pair.base_path / kChatTemplateName, "{{ x }}");
  pair.base = open_checkpoint(pair.base_path.string());
  SaveOptions options;
  options.source = pair.adapter;
  options.output = pair.directory / "saved";
  options.base = &pair.base;
  save(options);
  pair.adapter = options.output;
  const Manifest manifest = read_manifest(pair.adapter).value();
  REQUIRE(manifest.base_tokenizer == sha256(std::as_bytes(std::span(kTokenizer))));
  VerifyReport report = pair.run();
  REQUIRE(report.verdict == Verdict::proven);
  REQUIRE(report.findings.empty());
  write_file(pair.base_path / kTokenizerName, std::string(kTokenizer) + " ");
  write_file(pair.base_path / kChatTemplateName, "{{ y }}");
  report = pair.run();
  require_rule(report, "LV508", "is not the one that was there when the adapter was saved");
  require_rule(report, "LV509", "is not the one that was there when the adapter was saved");
  REQUIRE(report.verdict == Verdict::proven);
}

TEST_CASE("LV510: family, task and layers that do not fit the base") {
  Pair pair;
  pair.forget_record();
  AdapterConfig config = sample_config();
  const auto mapped_to = [&](const char* library) {
    config.auto_mapping =
        JsonObject{{"base_model_class", "SomeModel"}, {"parent_library", library}};
    pair.write_config(config);
  };
  mapped_to("transformers.models.llama.modeling_llama");
  REQUIRE(require_rule(pair.run(), "LV510", "the base is a mlp").severity == Severity::warning);
  mapped_to("my_package.models");
  REQUIRE(find_rule(pair.run(), "LV510") == nullptr);
  config.auto_mapping = {};
  config.task_type = "SEQ_2_SEQ_LM";
  pair.write_config(config);
  pair.edit_base_config("architectures", JsonArray{"LlamaForCausalLM"});
  require_rule(pair.run(), "LV510", "LlamaForCausalLM has no encoder");
  pair.edit_base_config("is_encoder_decoder", true);
  REQUIRE(find_rule(pair.run(), "LV510") == nullptr);
}
