// Files that repair and verify cannot read: the reason is said as it is, once.
#include <sys/stat.h>

#include "ops/repair_bench.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

struct Broken : Bench {
  Broken() {
    write(sample_tensors());
    write_config(sample_config());
  }
  fs::path config() const { return damaged / kAdapterConfigName; }
  fs::path weights() const { return damaged / kAdapterWeightsName; }

  std::string verify_says() const {
    VerifyOptions options;
    options.adapter = damaged;
    const VerifyReport report = verify(options);
    REQUIRE(!report.is_readable);
    REQUIRE(find_rule(report, "LV101") != nullptr);
    return find_rule(report, "LV101")->message;
  }
  std::string repair_says() const {
    try {
      repair(options());
    } catch (const Error& error) {
      return error.message();
    }
    return "no error";
  }
  void both_say(std::string_view part) const {
    INFO(part);
    CHECK_THAT(verify_says(), Catch::Contains(std::string(part)));
    CHECK_THAT(repair_says(), Catch::Contains(std::string(part)));
  }
};

}  // namespace

TEST_CASE("a byte order mark is taken off the configuration, and the rest of it stays") {
  const Broken broken;
  write_file(broken.config(), "\xEF\xBB\xBF" + read_file(broken.config()));
  CHECK_THAT(broken.verify_says(), Catch::Contains("a byte order mark"));
  const RepairReport report = repair(broken.options());
  REQUIRE(report.changes.size() == 1);
  REQUIRE(has_change(report, "a byte order mark", "left out"));
  broken.require_sample();
}

TEST_CASE("a number that is not finite is named with its member, and nothing is called lost") {
  for (const char* word : {"NaN", "Infinity", "-Infinity"}) {
    const Broken broken;
    write_file(broken.config(), R"({"peft_type": "LORA", "r": 4, "alpha_pattern": {"fc1": )" +
                                    std::string(word) +
                                    R"(}, "lora_alpha": 8, "target_modules": ["fc1", "fc2"]})");
    broken.both_say("\"alpha_pattern.fc1\" is " + std::string(word) +
                    ", which Python writes and JSON does not have");
    try {
      repair(broken.options());
      REQUIRE(false);
    } catch (const Error& error) {
      REQUIRE(error.hint() == "replace " + std::string(word) + " by the number that was meant");
    }
  }
}

TEST_CASE("why the configuration is lost is part of the question for alpha") {
  const auto asks = [](auto&& damage, std::string_view reason) {
    const Broken broken;
    damage(broken);
    CHECK_THAT(broken.repair_says(),
               Catch::Contains("lora_alpha is lost with adapter_config.json, which " +
                               std::string(reason)));
  };
  asks([](const Broken& b) { fs::remove(b.config()); }, "is missing");
  asks([](const Broken& b) { write_file(b.config(), ""); }, "is empty");
  asks([](const Broken& b) { write_file(b.config(), "[]"); }, "is no object");
  asks([](const Broken& b) { write_file(b.config(), "{\"r\": 4,"); }, "is damaged (");
  asks(
      [](const Broken& b) {
        fs::remove(b.config());
        fs::create_directory(b.config());
      },
      "is a directory");
}

TEST_CASE("what lies in the place of the configuration is said") {
  const Broken broken;
  fs::remove(broken.config());
  fs::create_directory(broken.config());
  CHECK_THAT(broken.verify_says(), Catch::Contains("adapter_config.json, a directory"));
}

TEST_CASE("weights that are no file are one clear error, and nothing waits for them") {
  const auto says = [](auto&& make, const std::string& kind) {
    const Broken broken;
    fs::remove(broken.weights());
    make(broken.weights());
    broken.both_say("found adapter_model.safetensors, " + kind);
  };
  says([](const fs::path& path) { fs::create_directory(path); }, "a directory");
  says([](const fs::path& path) { REQUIRE(::mkfifo(path.c_str(), 0600) == 0); }, "a named pipe");
  says([](const fs::path& path) { fs::create_symlink(path.filename(), path); },
       "a link that leads back to itself");
  says([](const fs::path& path) { fs::create_symlink("nowhere", path); },
       "a link that leads nowhere");
  says([](const fs::path& path) { fs::create_symlink("/dev/zero", path); }, "a device");
}

TEST_CASE("weights that are no file hide others from PEFT, which repair brings out") {
  const Broken broken;
  fs::remove(broken.weights());
  fs::create_directory(broken.weights());
  broken.write_pickle(sample_tensors(), kAdapterPickleName);
  CHECK_THAT(broken.verify_says(), Catch::Contains("adapter_model.safetensors, a directory"));
  const RepairReport report = repair(broken.options());
  REQUIRE(has_change(report, "adapter_model.safetensors, a directory", "left out"));
  broken.require_sample();
}

TEST_CASE("a path that is no file is called what it is") {
  const TempDir directory;
  REQUIRE(::mkfifo((directory / "pipe.safetensors").c_str(), 0600) == 0);
  RepairOptions options;
  options.adapter = directory / "pipe.safetensors";
  options.output = directory / "out";
  require_error(ErrorKind::not_found, "found a named pipe", [&] { repair(options); });
  options.adapter = directory / "none";
  require_error(ErrorKind::not_found, "found nothing there", [&] { repair(options); });
}
