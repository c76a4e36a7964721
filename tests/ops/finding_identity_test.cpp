// Which findings are the same one: what a baseline accepts, and what it must not.
#include "lora/format/safetensors.h"
#include "lora/ops/finding_filter.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

Finding finding_of(std::string rule, std::string message) {
  Finding finding;
  finding.rule = std::move(rule);
  finding.message = std::move(message);
  finding.severity = Severity::error;
  finding.file = "repo/adapters/x";
  return finding;
}

bool is_accepted(const Finding& known, const Finding& now, const fs::path& adapter) {
  const FindingBaseline baseline = make_baseline({known}, "repo/adapters/x", "repo");
  return baseline.find(now, adapter).has_value();
}

bool is_accepted(const Finding& known, const Finding& now) {
  return is_accepted(known, now, "repo/adapters/x");
}

std::string layer(int i) { return "model.layers." + std::to_string(i) + ".q"; }

TensorMap layers(int count) {
  TensorMap tensors;
  for (int i = 0; i < count; ++i) add_pair(tensors, layer(i), 4, 6, 5);
  return tensors;
}

TensorMap without_effect_in(std::initializer_list<int> dead) {
  TensorMap tensors = layers(9);
  for (const int i : dead) {
    Tensor& b = tensors.at("base_model.model." + layer(i) + ".lora_B.weight");
    b = Tensor::from_f32(b.shape, std::vector<float>(static_cast<std::size_t>(b.numel()), 0.0F));
  }
  return tensors;
}

}  // namespace

TEST_CASE("a finding is the same again, however its adapter is spelled") {
  const Finding known = finding_of("LV203", "rank 4, expected 8");
  REQUIRE(is_accepted(known, known));
  for (const char* spelling : {"repo/adapters/x/", "./repo/adapters/x", "repo/adapters/y/../x"}) {
    Finding again = known;
    again.file = spelling;
    REQUIRE(is_accepted(known, again, spelling));
  }
  Finding again = known;
  again.file = fs::absolute("repo/adapters/x").string();
  REQUIRE(is_accepted(known, again, again.file));
}

TEST_CASE("another rule, module, tensor, file, text or number is another finding") {
  Finding known = finding_of("LV204", "scaling is 4, the record says 2");
  known.module = "fc1";
  const auto differs = [&](auto&& change) {
    Finding other = known;
    change(other);
    return !is_accepted(known, other);
  };
  REQUIRE(differs([](Finding& f) { f.rule = "LV203"; }));
  REQUIRE(differs([](Finding& f) { f.module = "fc2"; }));
  REQUIRE(differs([](Finding& f) { f.tensor = "fc1.lora_A.weight"; }));
  REQUIRE(differs([](Finding& f) { f.file = "repo/adapters/x/adapter_config.json"; }));
  REQUIRE(differs([](Finding& f) { f.message = "scaling is 8, the record says 2"; }));
  REQUIRE(differs([](Finding& f) { f.message = "scaling is unknown"; }));
  REQUIRE(differs([](Finding& f) { f.unlisted = {"fc9"}; }));
  REQUIRE(!differs([](Finding& f) { f.hint = "another hint"; }));
}

TEST_CASE("another adapter is another finding, also one whose folder has the same name") {
  const Finding known = finding_of("LV402", "no effect");
  REQUIRE(!is_accepted(known, known, "repo/adapters/z"));
  REQUIRE(!is_accepted(known, known, "repo/other/x"));
}

TEST_CASE("paths inside messages do not tie a baseline to one checkout") {
  const fs::path here = fs::absolute("repo");
  const Finding known =
      finding_of("LV317", "cannot be loaded with " + (here / "adapters/y").string());
  const fs::path moved = "/elsewhere/repo";
  Finding again = known;
  again.file = (moved / "adapters/x").string();
  again.message = "cannot be loaded with " + (moved / "adapters/y").string();
  const FindingIdentity first = identity_of(known, here / "adapters/x", here);
  REQUIRE(identity_of(again, moved / "adapters/x", moved) == first);
  REQUIRE(first.message == "cannot be loaded with adapters/y");
  REQUIRE(first.adapter == "adapters/x");
  Finding named = finding_of("LV201", "repo/adapters/x/adapter_config.json is no object");
  REQUIRE(identity_of(named, "repo/adapters/x", "repo").message ==
          "adapters/x/adapter_config.json is no object");
}

TEST_CASE("figures of outputs are compared by their size, those of files exactly") {
  const auto known = finding_of("LV601", "differ by 0.01231 at position 3; tolerance 1.1e-05");
  REQUIRE(is_accepted(known,
                      finding_of("LV601", "differ by 0.01229 at position 3; tolerance 1.12e-05")));
  REQUIRE(
      !is_accepted(known, finding_of("LV601", "differ by 0.5 at position 3; tolerance 1.1e-05")));
  REQUIRE(!is_accepted(known,
                       finding_of("LV601", "differ by 0.01231 at position 4; tolerance 1.1e-05")));
  REQUIRE(!is_accepted(finding_of("LV408", "norm 0.01231"), finding_of("LV408", "norm 0.01229")));
}

TEST_CASE("an adapter is named as its folder is, or as links lead where that is outside") {
  const TempDir directory;
  fs::create_directories(directory / "repo/adapters/x");
  fs::create_directories(directory / "store");
  fs::create_directory_symlink(directory / "repo", directory / "link");
  fs::create_directory_symlink(directory / "store", directory / "repo/adapters/linked");
  REQUIRE(adapter_in(directory / "repo", directory / "repo/adapters/x") == "adapters/x");
  REQUIRE(adapter_in(directory / "repo", directory / "link/adapters/x") == "adapters/x");
  REQUIRE(adapter_in(directory / "repo", directory / "repo/adapters/linked") == "adapters/linked");
  REQUIRE(adapter_in(directory / "repo", directory / "store") == "../store");
  REQUIRE(adapter_in(directory / "repo", directory / "repo/") == ".");
}

TEST_CASE("names that a message does not list are part of the finding") {
  VerifyCase sample;
  const auto findings = [&](std::initializer_list<int> dead) {
    return sample.run(config_on({"q"}), without_effect_in(dead)).findings;
  };
  const auto accepts = [&](const FindingBaseline& baseline, const Findings& now) {
    return std::all_of(now.begin(), now.end(), [&](const Finding& finding) {
      return finding.severity == Severity::note || baseline.find(finding, sample.adapter());
    });
  };
  const Findings known = findings({0, 1, 2, 3, 4});
  const FindingBaseline baseline =
      make_baseline(known, sample.adapter(), sample.adapter().parent_path());
  REQUIRE(!baseline.accepted.empty());
  REQUIRE(accepts(baseline, findings({0, 1, 2, 3, 4})));
  REQUIRE(!accepts(baseline, findings({0, 1, 2, 3, 8})));
  REQUIRE(!accepts(baseline, findings({0, 1, 2, 3, 4, 8})));
}

TEST_CASE("a baseline of an earlier release is refused, and how to renew it is said") {
  const TempDir directory;
  const fs::path file = directory / "known.json";
  write_file(file, R"({"schema": "lora.verify_baseline/1", "accepted": [
    {"rule": "LV204", "adapter": null, "module": "fc1", "tensor": null, "message": "is #"}]})");
  try {
    read_baseline(file);
    REQUIRE(false);
  } catch (const Error& error) {
    REQUIRE(error.kind() == ErrorKind::unsupported);
    REQUIRE(error.message().find("do not say which adapter and which numbers") !=
            std::string::npos);
    REQUIRE(error.hint().find("--write-baseline " + file.string() + " --force") !=
            std::string::npos);
  }
}
