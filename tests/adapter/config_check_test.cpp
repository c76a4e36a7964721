#include "lora/adapter/config_check.h"

#include <algorithm>

#include "adapter/golden.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

CheckedConfig check(const std::string& text) { return check_adapter_config(text, "test.json"); }

bool names(const CheckedConfig& checked, std::string_view field, std::string_view part) {
  return std::any_of(checked.problems.begin(), checked.problems.end(), [&](const auto& problem) {
    return problem.field == field && problem.message.find(part) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("every violation of a configuration is named at once and the rest is read") {
  const CheckedConfig checked = check(
      R"({"peft_type": "LORA", "r": "8", "lora_alpha": 32, "bias": "some", "task_type": "CHAT",
          "qalora_group_size": 0, "target_modules": ["q"], "lora_alpha": 16, "future": [1]})");
  REQUIRE(checked.problems.size() == 5);
  REQUIRE(names(checked, "lora_alpha", "given more than once"));
  REQUIRE(names(checked, "r", "is \"8\" (string), expected an integer"));
  REQUIRE(names(checked, "bias", "none or all or lora_only"));
  REQUIRE(names(checked, "task_type", "CHAT"));
  REQUIRE(names(checked, "qalora_group_size", "is 0"));
  REQUIRE(checked.config.rank == 8);
  REQUIRE(checked.config.alpha == 16);
  REQUIRE(checked.config.unknown_fields() == std::vector<std::string>{"future"});
  // What was refused is not kept, so that the configuration can be written.
  REQUIRE(check(dump_adapter_config([&] {
            AdapterConfig config = checked.config;
            config.task_type.reset();
            return config;
          }()))
              .problems.empty());
}

TEST_CASE("a repeated key inside a pattern has its path in the message") {
  const CheckedConfig checked = check(R"({"peft_type": "LORA", "rank_pattern": {"q": 4, "q": 2}})");
  REQUIRE(names(checked, "rank_pattern", "rank_pattern.q is given more than once"));
  REQUIRE(checked.config.rank_pattern == NumberPattern{{"q", 2}});
}

TEST_CASE("expressions that do not compile are violations of their field") {
  const CheckedConfig checked = check(
      R"({"peft_type": "LORA", "rank_pattern": {"q(": 4, "k": 2}, "target_modules": "(",
          "modules_to_save": ["head", "["]})");
  REQUIRE(names(checked, "rank_pattern", "q("));
  REQUIRE(names(checked, "target_modules", "("));
  REQUIRE(names(checked, "modules_to_save", "["));
  REQUIRE(checked.config.rank_pattern == NumberPattern{{"k", 2}});
  REQUIRE(checked.config.modules_to_save == std::vector<std::string>{"head"});
}

TEST_CASE("a missing peft_type is a violation, another one no LoRA at all") {
  REQUIRE(names(check(R"({"r": 4})"), "peft_type", "missing"));
  require_error(ErrorKind::unsupported, "IA3", [] { check(R"({"peft_type": "IA3"})"); });
  require_error(ErrorKind::malformed, "expected an object", [] { check("[]"); });
  require_error(ErrorKind::malformed, "JSON", [] { check("{"); });
}

TEST_CASE("what PEFT's layers refuse is a conflict") {
  const auto conflict = [](const std::string& members) {
    const CheckedConfig checked = check(R"({"peft_type": "LORA", )" + members + "}");
    REQUIRE(checked.problems.size() == 1);
    return checked.problems.front().message;
  };
  REQUIRE(conflict(R"("use_dora": true, "kasa_config": {"beta": 1})").find("kasa_config") !=
          std::string::npos);
  REQUIRE(conflict(R"("init_lora_weights": "mica", "use_dora": true)").find("mica") !=
          std::string::npos);
  REQUIRE(conflict(R"("init_lora_weights": "magic")").find("\"magic\"") != std::string::npos);
  REQUIRE(conflict(R"("init_lora_weights": "loftq")").find("loftq_config") != std::string::npos);
  REQUIRE(conflict(R"("init_lora_weights": "lora_ga")").find("lora_ga_config") !=
          std::string::npos);
  REQUIRE(conflict(R"("init_lora_weights": "orthogonal", "r": 3)").find("r is 3") !=
          std::string::npos);
  REQUIRE(conflict(R"("use_dora": true, "megatron_config": {"a": 1})").find("megatron_config") !=
          std::string::npos);
}

TEST_CASE("one variant, known initialisations and every file of PEFT have no problem") {
  for (const char* members :
       {R"("use_dora": true, "kasa_config": null)", R"("kasa_config": {"beta": 1})",
        R"("init_lora_weights": "pissa_niter_16")", R"("init_lora_weights": "eva")",
        R"("init_lora_weights": "orthogonal", "r": 4)",
        R"("init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4})"}) {
    INFO(members);
    REQUIRE(check(std::string(R"({"peft_type": "LORA", )") + members + "}").problems.empty());
  }
  for (const auto& path : entries_of(golden("configs"))) {
    INFO(path);
    const CheckedConfig checked = check(read_file(path));
    REQUIRE(checked.problems.empty());
    REQUIRE(dump_adapter_config(checked.config) == dump_adapter_config(read_adapter_config(path)));
  }
}
