// `lora verify --baseline` as a CI job meets it.
#include "lora/format/safetensors.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

AdapterConfig with_rank(std::int64_t rank) {
  AdapterConfig config = sample_config();
  config.rank = rank;
  return config;
}

/// A checkout with adapters: "good" is whole, the rank of "edited" is not that of its tensors.
struct Checkout {
  TempDir directory;
  fs::path root = directory / "checkout";

  Checkout() {
    write_sample(adapter("good"), sample_config(), sample_tensors());
    write_sample(adapter("edited"), sample_config(), sample_tensors());
    set_rank("edited", 3);
  }
  fs::path adapter(const std::string& name) const { return root / "adapters" / name; }
  std::string path(const std::string& name) const { return adapter(name).string(); }
  std::string known() const { return (root / "known.json").string(); }
  void set_rank(const std::string& name, std::int64_t rank) const {
    write_file(adapter(name) / kAdapterConfigName, dump_adapter_config(with_rank(rank)));
  }
  CommandResult check(const std::string& name) const {
    return lora_verify({path(name), "--baseline", known()});
  }
};

}  // namespace

TEST_CASE("a baseline is written once, accepts what it lists, and says what is stale") {
  const Checkout checkout;
  const CommandResult written =
      lora_verify({checkout.path("edited"), "--write-baseline", checkout.known()});
  REQUIRE(written.code == 1);
  REQUIRE(contains(written.err, "wrote 1 finding to baseline"));
  REQUIRE(contains(read_file(checkout.known()), "\"adapter\": \"adapters/edited\""));
  REQUIRE(lora_verify({checkout.path("edited"), "--write-baseline", checkout.known()}).code == 5);
  const CommandResult accepted = checkout.check("edited");
  REQUIRE(accepted.code == 0);
  REQUIRE(contains(accepted.out, "1 finding accepted by the baseline"));
  REQUIRE(!contains(accepted.err, "no longer there"));
  // Adapters that were not part of the run cannot be judged.
  REQUIRE(!contains(checkout.check("good").err, "no longer there"));
  write_file(checkout.adapter("edited") / kAdapterConfigName, dump_adapter_config(sample_config()));
  CommandResult stale =
      lora_verify({checkout.path("edited"), "--baseline", checkout.known(), "--json"});
  REQUIRE(stale.code == 0);
  REQUIRE(contains(stale.err, "1 finding of baseline " + checkout.known() + " no longer there"));
  const JsonArray& entries = *stale.result().find("baseline")->find("stale")->as_array();
  REQUIRE(entries.size() == 1);
  REQUIRE(*entries[0].find("adapter") == Json("adapters/edited"));
  // Neither can rules that were not looked at.
  REQUIRE(!contains(
      lora_verify({checkout.path("edited"), "--baseline", checkout.known(), "--select", "LV4"}).err,
      "no longer there"));
  REQUIRE(lora_verify({checkout.path("good"), "--baseline", checkout.path("none.json")}).code == 3);
  REQUIRE(lora_verify({checkout.path("edited"), "--baseline", checkout.known(), "--write-baseline",
                       checkout.known(), "-f"})
              .code == 0);
  REQUIRE(contains(read_file(checkout.known()), "\"accepted\": []"));
}

TEST_CASE("a baseline of one adapter accepts neither new damage nor another adapter") {
  const Checkout checkout;
  lora_verify({checkout.path("edited"), "--write-baseline", checkout.known()});
  REQUIRE(checkout.check("edited").code == 0);
  checkout.set_rank("edited", 5);
  REQUIRE(checkout.check("edited").code == 1);
  checkout.set_rank("edited", 3);
  REQUIRE(checkout.check("edited").code == 0);
  TensorMap tensors = sample_tensors();
  tensors.erase(tensors.begin());
  write_safetensors(checkout.adapter("edited") / kAdapterWeightsName, tensors, &pytorch_metadata(),
                    WriteOptions{true, nullptr});
  REQUIRE(checkout.check("edited").code == 1);
  checkout.set_rank("good", 3);
  REQUIRE(checkout.check("good").code == 1);
}

TEST_CASE("a baseline of several adapters accepts each one's own findings") {
  const Checkout checkout;
  lora_verify({checkout.root.string() + "/adapters/*", "--write-baseline", checkout.known()});
  REQUIRE(
      lora_verify({checkout.root.string() + "/adapters/*", "--baseline", checkout.known()}).code ==
      0);
  REQUIRE(checkout.check("edited").code == 0);
  fs::rename(checkout.adapter("edited"), checkout.adapter("other"));
  REQUIRE(checkout.check("other").code == 1);
}

TEST_CASE("a baseline moves with its checkout") {
  const Checkout checkout;
  lora_verify({checkout.root.string() + "/adapters/*", "--write-baseline", checkout.known()});
  const fs::path moved = checkout.directory / "another/place";
  fs::create_directories(moved.parent_path());
  fs::rename(checkout.root, moved);
  const std::string known = (moved / "known.json").string();
  REQUIRE(lora_verify({moved.string() + "/adapters/*", "--baseline", known}).code == 0);
  // And it is found from another folder by relative paths.
  const fs::path relative = fs::relative(moved);
  REQUIRE(lora_verify({(relative / "adapters/edited").string(), "--baseline",
                       (relative / "known.json").string()})
              .code == 0);
}
