// `lora diff` of adapters whose values are not finite: said aloud, and every document stays valid.
#include <limits>

#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

TEST_CASE("diff says which values are not finite, in text, JSON and HTML") {
  const TempDir directory;
  const std::string good = (directory / "good").string(), bad = (directory / "bad").string();
  write_sample(good, sample_config(), sample_tensors());
  TensorMap tensors = sample_tensors();
  std::vector<float> values(40, 1.0F);
  values[3] = -std::numeric_limits<float>::quiet_NaN();
  tensors["base_model.model.fc1.lora_A.weight"] = Tensor::from_f32({4, 10}, values);
  write_sample(bad, sample_config(), tensors);

  const CommandResult text = lora::testing::lora({"diff", good, bad});
  REQUIRE(text.code == 1);
  REQUIRE(contains(text.out,
                   "values that are not finite, so the figures are not either (1):\n"
                   "  fc1 (B)"));
  REQUIRE(contains(text.out, "|dA - dB| / |dA| = nan, cosine nan"));
  REQUIRE(!contains(text.out, "-nan"));

  CommandResult json = lora::testing::lora({"diff", good, bad, "--json"});
  const Json& result = json.result();
  REQUIRE(*result.find("total_difference") == Json("nan"));
  REQUIRE(result.find("equal")->as_bool() == false);
  const Json& module = result.find("modules")->as_array()->at(0);
  REQUIRE(module.find("finite_a")->as_bool() == true);
  REQUIRE(module.find("finite_b")->as_bool() == false);
  REQUIRE(*module.find("relative") == Json("nan"));

  const std::string page = (directory / "page.html").string();
  REQUIRE(lora::testing::lora({"diff", good, bad, "--html", page}).code == 1);
  REQUIRE(contains(read_file(page), "<td class=\"right\">nan</td>"));

  const CommandResult same = lora::testing::lora({"diff", bad, bad});
  REQUIRE(same.code == 0);
  REQUIRE(contains(same.out, "equal: 2 modules"));
  REQUIRE(contains(same.out, "values that are not finite (1):\n  fc1 (A and B)"));
}
