#include <algorithm>
#include <cmath>
#include <limits>

#include "lora/ops/verify.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

// An adapter of `layers` modules layers.N.q_proj, [64, 48], rank 8, as training leaves it.
struct Family {
  AdapterConfig config;
  TensorMap tensors;

  explicit Family(int layers, std::int64_t rank = 8) {
    config = sample_config();
    config.rank = rank;
    config.target_modules = std::vector<std::string>{"q_proj"};
    for (int layer = 0; layer < layers; ++layer) {
      tensors[key(layer, 'A')] = normal_tensor(key(layer, 'A'), {rank, 48}, 0.1);
      tensors[key(layer, 'B')] = normal_tensor(key(layer, 'B'), {64, rank}, 1e-3);
    }
  }

  static std::string key(int layer, char factor) {
    return "base_model.model.layers." + std::to_string(layer) + ".q_proj.lora_" + factor +
           ".weight";
  }

  template <typename Change>
  void change(const std::string& name, Change&& change) {
    std::vector<float> values = tensors.at(name).to_f32();
    change(values);
    tensors[name] = Tensor::from_f32(tensors.at(name).shape, values);
  }
  void zero_tail(const std::string& name, std::int64_t kept) {
    const std::int64_t width = tensors.at(name).numel() / tensors.at(name).shape[0];
    change(name, [&](std::vector<float>& values) {
      std::fill(values.begin() + kept * width, values.end(), 0.0F);
    });
  }

  VerifyReport verify(const Checkpoint* base = nullptr) const {
    TempDir directory;
    write_sample(directory / "adapter", config, tensors);
    VerifyOptions options;
    options.adapter = directory / "adapter";
    options.base = base;
    return lora::verify(options);
  }
};

const Finding* find_rule(const VerifyReport& report, std::string_view rule) {
  const auto found = std::find_if(report.findings.begin(), report.findings.end(),
                                  [&](const Finding& finding) { return finding.rule == rule; });
  return found == report.findings.end() ? nullptr : &*found;
}

void require_rule(const VerifyReport& report, std::string_view rule, Severity severity,
                  std::string_view part) {
  const Finding* finding = find_rule(report, rule);
  INFO("rule " << rule);
  REQUIRE(finding != nullptr);
  INFO(finding->message);
  REQUIRE(finding->severity == severity);
  REQUIRE(finding->message.find(part) != std::string::npos);
  REQUIRE(!finding->hint.empty());
}

void require_silence(const VerifyReport& report) {
  for (const Finding& finding : report.findings) {
    INFO(finding.rule << " " << finding.message);
    REQUIRE(finding.rule.substr(0, 3) != "LV4");
  }
}

}  // namespace

TEST_CASE("a trained adapter gives no finding about its numbers, a barely trained one neither") {
  require_silence(Family(10).verify());
  Family barely(10);
  for (int layer = 0; layer < 10; ++layer)
    barely.tensors[Family::key(layer, 'B')] = normal_tensor("b", {64, 8}, 1e-9);
  require_silence(barely.verify());
  Family small(1, 2);
  require_silence(small.verify());
}

TEST_CASE("one shard of several is an error with the number of shards") {
  Family family(3);
  for (int layer = 0; layer < 3; ++layer) {
    family.zero_tail(Family::key(layer, 'A'), 2);
    family.zero_tail(Family::key(layer, 'B'), 16);
  }
  require_rule(family.verify(), "LV405", Severity::error, "only the first 1/4 of the rows");
  // The rank rows that are missing are those of the other shards: nothing more to say.
  REQUIRE(find_rule(family.verify(), "LV407") == nullptr);
  family.tensors[Family::key(1, 'A')] = normal_tensor("whole", {8, 48}, 0.1);
  require_rule(family.verify(), "LV405", Severity::warning, "in 5 of 6 tensors");
}

TEST_CASE("a check of parameters that failed says by which rules, and claims nothing") {
  const auto detail_of = [](const VerifyReport& report) {
    for (const CheckResult& check : report.checks)
      if (check.name == "parameters") return check.detail;
    return std::string();
  };
  Family family(3);
  REQUIRE(detail_of(family.verify()) ==
          "no record to compare with; values are finite and have an effect");
  family.zero_tail(Family::key(0, 'B'), 0);
  REQUIRE(detail_of(family.verify()) ==
          "no record to compare with; values are finite, and not all have an effect");
  family.change(Family::key(1, 'B'), [](std::vector<float>& values) {
    values[3] = std::numeric_limits<float>::quiet_NaN();
  });
  REQUIRE(detail_of(family.verify()) == "no record to compare with; wrong: tensor-non-finite");
}

TEST_CASE("a few zero rows of a trained factor are no shard") {
  Family family(3);
  family.zero_tail(Family::key(0, 'B'), 60);
  family.change(Family::key(1, 'B'), [](std::vector<float>& values) {
    for (std::size_t row = 0; row < 64; row += 2)
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(row * 8), 8, 0.0F);
  });
  REQUIRE(find_rule(family.verify(), "LV405") == nullptr);
}

TEST_CASE("no effect: the message says which factor is zero, or that alpha is") {
  Family family(2);
  family.zero_tail(Family::key(0, 'B'), 0);
  require_rule(family.verify(), "LV402", Severity::warning, "1 of 2 modules have no effect (B is");
  family.config.alpha = 0;
  const VerifyReport report = family.verify();
  require_rule(report, "LV402", Severity::error, "lora_alpha is 0");
  REQUIRE(find_rule(report, "LV402")->hint.find("set lora_alpha") != std::string::npos);
}

TEST_CASE("a fresh DoRA adapter is a note, its magnitudes may have an effect") {
  Family family(2);
  family.config.use_dora = true;
  for (int layer = 0; layer < 2; ++layer) {
    family.zero_tail(Family::key(layer, 'B'), 0);
    family.tensors["base_model.model.layers." + std::to_string(layer) +
                   ".q_proj.lora_magnitude_vector"] = normal_tensor("m", {64});
  }
  require_rule(family.verify(), "LV402", Severity::note, "DoRA magnitudes");
}

TEST_CASE("initial values are noted where the update is zero, and only there") {
  Family family(2);
  for (int layer = 0; layer < 2; ++layer)
    family.change(Family::key(layer, 'A'), [&](std::vector<float>& values) {
      const CounterRandom random(7, static_cast<std::uint64_t>(layer));
      const double bound = 1 / std::sqrt(48.0);
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>((2 * random.uniform(i) - 1) * bound);
    });
  REQUIRE(find_rule(family.verify(), "LV406") == nullptr);
  family.zero_tail(Family::key(1, 'B'), 0);
  require_rule(family.verify(), "LV406", Severity::note, "1 of 2 modules hold what PEFT");
  family.change(Family::key(1, 'A'), [](std::vector<float>& values) {
    for (float& value : values) value *= 3;
  });
  REQUIRE(find_rule(family.verify(), "LV406") == nullptr);
}

TEST_CASE("dead rank rows are a warning, in a module without any update they are not") {
  Family family(2);
  const auto kill = [&](int layer, std::size_t count) {
    family.change(Family::key(layer, 'B'), [&](std::vector<float>& values) {
      for (std::size_t row = 0; row < 64; ++row)
        for (std::size_t i = 0; i < count; ++i) values[row * 8 + i] = 0;
    });
  };
  kill(0, 8);
  REQUIRE(find_rule(family.verify(), "LV407") == nullptr);
  kill(1, 3);
  require_rule(family.verify(), "LV407", Severity::warning, "3 of 8 rank rows");
  kill(0, 2);
  family.tensors[Family::key(0, 'B')] = normal_tensor("b", {64, 8}, 0.1);
  kill(0, 2);
  const VerifyReport both = family.verify();
  require_rule(both, "LV407", Severity::warning, "in 2 of 2 modules rank rows are zero");
  REQUIRE(std::count_if(both.findings.begin(), both.findings.end(),
                        [](const Finding& finding) { return finding.rule == "LV407"; }) == 1);
}

TEST_CASE("equal rank rows are a warning, nearly equal ones are not") {
  Family family(1);
  const auto copy_row = [&](float factor) {
    family.change(Family::key(0, 'A'), [&](std::vector<float>& values) {
      for (std::size_t i = 0; i < 48; ++i) values[5 * 48 + i] = values[i] * (i == 0 ? factor : 1);
    });
    family.change(Family::key(0, 'B'), [](std::vector<float>& values) {
      for (std::size_t row = 0; row < 64; ++row) values[row * 8 + 5] = values[row * 8];
    });
  };
  copy_row(1.01F);
  REQUIRE(find_rule(family.verify(), "LV408") == nullptr);
  copy_row(1);
  require_rule(family.verify(), "LV408", Severity::warning, "0 = 5");
}

TEST_CASE("denormals are a note; a few of F16 are not") {
  Family family(1);
  family.change(Family::key(0, 'B'), [](std::vector<float>& values) { values[9] = 1e-40F; });
  require_rule(family.verify(), "LV409", Severity::note, "1 values below");
  Family half(1);
  half.change(Family::key(0, 'B'), [](std::vector<float>& values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = i < 4 ? 1e-5F : 0.01F + 1e-4F * static_cast<float>(i);
  });
  half.tensors[Family::key(0, 'B')] = half.tensors[Family::key(0, 'B')].cast(DType::f16);
  REQUIRE(find_rule(half.verify(), "LV409") == nullptr);
  half.tensors[Family::key(0, 'B')] = normal_tensor("tiny", {64, 8}, 1e-5).cast(DType::f16);
  require_rule(half.verify(), "LV409", Severity::note, Family::key(0, 'B'));
}

TEST_CASE("a module far above its family is named, one in a varied family is not") {
  Family family(12);
  const auto scale = [&](int layer, double factor) {
    family.change(Family::key(layer, 'B'), [&](std::vector<float>& values) {
      for (float& value : values) value *= static_cast<float>(factor);
    });
  };
  scale(4, 5);
  REQUIRE(find_rule(family.verify(), "LV410") == nullptr);
  scale(4, 6);
  require_rule(family.verify(), "LV410", Severity::note, "layers.4.q_proj");
  scale(4, 10);
  require_rule(family.verify(), "LV410", Severity::warning, "times the median of all q_proj");
  // The same distance is no outlier where norms spread over decades anyway.
  for (int layer = 0; layer < 12; ++layer)
    if (layer != 4) scale(layer, std::pow(10, layer % 4));
  REQUIRE(find_rule(family.verify(), "LV410") == nullptr);
}

TEST_CASE("an update above the weight is a note, ten times above a warning") {
  TempDir directory;
  const Checkpoint base = sample_base(directory / "base");
  Family family(0);
  family.config = sample_config();
  family.tensors = sample_tensors();
  const auto scaled = [&](double alpha) {
    family.config.alpha = alpha;
    return family.verify(&base);
  };
  REQUIRE(find_rule(scaled(0.8), "LV411") == nullptr);
  require_rule(scaled(64), "LV411", Severity::note, "larger than the weight");
  require_rule(scaled(1000), "LV411", Severity::warning, "larger than the weight");
}

TEST_CASE("an update in one direction is a note, at ranks that promise more") {
  const auto concentrate = [](std::int64_t rank) {
    Family family(1, rank);
    family.change(Family::key(0, 'B'), [&](std::vector<float>& values) {
      for (std::size_t i = 0; i < values.size(); ++i)
        if (i % static_cast<std::size_t>(rank) != 0) values[i] *= 1e-3F;
    });
    return family.verify();
  };
  require_rule(concentrate(8), "LV412", Severity::note, "more than 99 %");
  REQUIRE(find_rule(concentrate(4), "LV412") == nullptr);
  REQUIRE(find_rule(Family(1).verify(), "LV412") == nullptr);
}

TEST_CASE("figures of an adapter do not depend on the number of threads") {
  Family family(9);
  TempDir directory;
  write_sample(directory / "adapter", family.config, family.tensors);
  VerifyOptions options;
  options.adapter = directory / "adapter";
  options.threads = 1;
  const VerifyReport one = verify(options);
  options.threads = 4;
  const VerifyReport four = verify(options);
  for (std::size_t i = 0; i < one.modules.size(); ++i) {
    REQUIRE(one.modules[i].update.singular_values == four.modules[i].update.singular_values);
    REQUIRE(one.modules[i].a.std == four.modules[i].a.std);
    REQUIRE(one.modules[i].b.norm == four.modules[i].b.norm);
  }
}
