// `lora diff` through the command line: the figures of its text and JSON, recomputed here in
// float64 from the same tensors.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "cli/units.h"
#include "lora/format/safetensors.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

using Matrix = std::vector<double>;

const std::string kPrefix = "base_model.model.";

double dot(const Matrix& x, const Matrix& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}
double norm(const Matrix& x) { return std::sqrt(dot(x, x)); }
Matrix minus(const Matrix& x, const Matrix& y) {
  Matrix result(x);
  for (std::size_t i = 0; i < x.size(); ++i) result[i] -= y[i];
  return result;
}
void append(Matrix& all, const Matrix& more) { all.insert(all.end(), more.begin(), more.end()); }

/// s * B * A of one module.
Matrix update_of(const TensorMap& tensors, const std::string& module, double scaling) {
  const Tensor& a = tensors.at(kPrefix + module + ".lora_A.weight");
  const Tensor& b = tensors.at(kPrefix + module + ".lora_B.weight");
  const auto rank = static_cast<std::size_t>(a.shape[0]), in = static_cast<std::size_t>(a.shape[1]);
  const auto out = static_cast<std::size_t>(b.shape[0]);
  const Matrix left = b.to_f64(), right = a.to_f64();
  Matrix update(out * in);
  for (std::size_t i = 0; i < out; ++i)
    for (std::size_t j = 0; j < in; ++j)
      for (std::size_t k = 0; k < rank; ++k)
        update[i * in + j] += scaling * left[i * rank + k] * right[k * in + j];
  return update;
}

double number(const Json& object, const char* name) {
  const Json* value = object.find(name);
  REQUIRE(value != nullptr);
  return value->as_double().value();
}

const Json& row(const JsonArray& rows, const char* name, const std::string& wanted) {
  for (const Json& entry : rows)
    if (*entry.find(name)->as_string() == wanted) return entry;
  FAIL("no row " << wanted);
  return rows.front();
}

const JsonArray& rows_of(const Json& result, const char* name) {
  return *result.find(name)->as_array();
}

/// The line of a text that begins with this word, its runs of spaces made one.
std::string line_of(const std::string& text, const std::string& word) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first != word) continue;
    std::string joined = first;
    for (std::string next; words >> next;) joined += " " + next;
    return joined;
  }
  FAIL("no line " << word << " in\n" << text);
  return {};
}

/// Two layers of q and up, ranks 1 so that the angles have a closed form.
struct TwoAdapters {
  TempDir directory;
  AdapterConfig config_a, config_b;
  TensorMap a, b;
  std::vector<std::string> modules{"layers.0.q", "layers.0.up", "layers.1.q", "layers.1.up"};

  TwoAdapters() {
    config_a = sample_config();
    config_a.rank = 1;
    config_a.alpha = 2;
    config_a.target_modules = std::vector<std::string>{"q", "up"};
    config_b = config_a;
    config_b.alpha = 3;
    config_b.dropout = 0.25;
    for (const std::string& module : modules)
      for (const auto& [factor, shape] :
           {std::pair(".lora_A.weight", std::vector<std::int64_t>{1, 6}),
            std::pair(".lora_B.weight", std::vector<std::int64_t>{5, 1})}) {
        a[kPrefix + module + factor] = normal_tensor(module + factor, shape, 1, 1);
        b[kPrefix + module + factor] = normal_tensor(module + factor, shape, 1, 2);
      }
  }
  std::vector<std::string> written(std::vector<std::string> more = {}) {
    write_sample(directory / "a", config_a, a);
    write_sample(directory / "b", config_b, b);
    std::vector<std::string> arguments{"diff", (directory / "a").string(),
                                       (directory / "b").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  /// All updates whose module path holds `part`, as one vector.
  Matrix updates(bool is_a, const std::string& part) const {
    Matrix all;
    for (const std::string& module : modules)
      if (module.find(part) != std::string::npos)
        append(all, update_of(is_a ? a : b, module, is_a ? 2 : 3));
    return all;
  }
};

void check_figures(const Json& entry, const Matrix& a, const Matrix& b) {
  CHECK(number(entry, "norm_a") == Approx(norm(a)).epsilon(1e-6));
  CHECK(number(entry, "norm_b") == Approx(norm(b)).epsilon(1e-6));
  CHECK(number(entry, "difference") == Approx(norm(minus(a, b))).epsilon(1e-6));
  CHECK(number(entry, "relative") == Approx(norm(minus(a, b)) / norm(a)).epsilon(1e-6));
  CHECK(number(entry, "cosine") ==
        Approx(dot(a, b) / (norm(a) * norm(b))).epsilon(1e-6).margin(1e-9));
}

/// In degrees.
double angle_between(const Tensor& x, const Tensor& y) {
  const Matrix u = x.to_f64(), v = y.to_f64();
  return std::acos(std::abs(dot(u, v)) / (norm(u) * norm(v))) * 180 / std::numbers::pi;
}

}  // namespace

TEST_CASE("diff of adapters: norms, distances, cosines and angles of every module as JSON") {
  TwoAdapters adapters;
  CommandResult run = lora::testing::lora(adapters.written({"--json"}));
  REQUIRE(run.code == 1);
  const Json& result = run.result();
  REQUIRE(*result.find("kind") == Json("adapters"));
  const JsonArray& modules = rows_of(result, "modules");
  REQUIRE(modules.size() == 4);
  for (const std::string& module : adapters.modules) {
    INFO(module);
    const Json& entry = row(modules, "module", module);
    check_figures(entry, update_of(adapters.a, module, 2), update_of(adapters.b, module, 3));
    CHECK(number(entry, "scaling_a") == 2);
    CHECK(number(entry, "scaling_b") == 3);
    // Of rank 1: the output space is spanned by B, the input space by A.
    for (const auto& [angles, factor] : {std::pair("column_angles", ".lora_B.weight"),
                                         std::pair("row_angles", ".lora_A.weight")}) {
      const JsonArray& found = rows_of(entry, angles);
      REQUIRE(found.size() == 1);
      CHECK(found[0].as_double().value() ==
            Approx(angle_between(adapters.a.at(kPrefix + module + factor),
                                 adapters.b.at(kPrefix + module + factor)))
                .epsilon(1e-5));
    }
    const JsonArray& sigma = rows_of(entry, "singular_values_a");
    REQUIRE(sigma.size() == 1);
    CHECK(sigma[0].as_double().value() ==
          Approx(norm(update_of(adapters.a, module, 2))).epsilon(1e-6));
  }
  const Matrix a = adapters.updates(true, ""), b = adapters.updates(false, "");
  CHECK(number(result, "total_difference") == Approx(norm(minus(a, b))).epsilon(1e-6));
  CHECK(number(result, "total_cosine") ==
        Approx(dot(a, b) / (norm(a) * norm(b))).epsilon(1e-6).margin(1e-9));
}

TEST_CASE("diff of adapters: sums by kind and by depth, and a map of both") {
  TwoAdapters adapters;
  CommandResult run = lora::testing::lora(adapters.written({"--json"}));
  const Json& result = run.result();
  for (const auto& [group, name, part] :
       {std::tuple("by_kind", "q", ".q"), std::tuple("by_kind", "up", ".up"),
        std::tuple("by_layer", "0", "layers.0."), std::tuple("by_layer", "1", "layers.1.")}) {
    INFO(group << " " << name);
    const Json& entry = row(rows_of(result, group), "name", name);
    check_figures(entry, adapters.updates(true, part), adapters.updates(false, part));
    CHECK(entry.find("modules")->as_int() == 2);
    CHECK(entry.find("changed")->as_int() == 2);
  }
  const Json& map = *result.find("relative_map");
  REQUIRE(*map.find("layers") == Json(JsonArray{"0", "1"}));
  REQUIRE(*map.find("modules") == Json(JsonArray{"q", "up"}));
  const Json& cell = rows_of(map, "values").at(1).as_array()->at(0);
  const Matrix a = adapters.updates(true, "layers.1.q"), b = adapters.updates(false, "layers.1.q");
  CHECK(cell.as_double().value() == Approx(norm(minus(a, b)) / norm(a)).epsilon(1e-6));
}

TEST_CASE("diff of adapters: fields that change the mathematics are marked, others are not") {
  TwoAdapters adapters;
  CommandResult json = lora::testing::lora(adapters.written({"--json"}));
  const JsonArray& fields = rows_of(json.result(), "fields");
  REQUIRE(fields.size() == 2);
  const Json& alpha = row(fields, "field", "lora_alpha");
  REQUIRE(alpha.find("a")->as_int() == 2);
  REQUIRE(alpha.find("b")->as_int() == 3);
  REQUIRE(contains(*alpha.find("changes")->as_string(), "scaling"));
  REQUIRE(row(fields, "field", "lora_dropout").find("changes")->is_null());
  const CommandResult text = lora::testing::lora(adapters.written());
  REQUIRE(contains(line_of(text.out, "*"), "* lora_alpha 2 3 scaling"));
  REQUIRE(line_of(text.out, "lora_dropout") == "lora_dropout 0.0 0.25");
}

TEST_CASE("diff of adapters: the text shows the same figures, and equal adapters are equal") {
  TwoAdapters adapters;
  const CommandResult text = lora::testing::lora(adapters.written());
  REQUIRE(text.code == 1);
  INFO(text.out);
  const Matrix a = update_of(adapters.a, "layers.1.up", 2);
  const Matrix b = update_of(adapters.b, "layers.1.up", 3);
  const auto shown = [](double value) { return cli::number_text(value); };
  CHECK(contains(line_of(text.out, "layers.1.up"),
                 "layers.1.up 1 2 / 3 " + shown(norm(a)) + " " + shown(norm(b)) + " " +
                     shown(norm(minus(a, b)) / norm(a)) + " " +
                     cli::number_text(dot(a, b) / (norm(a) * norm(b)), 6)));
  CHECK(contains(text.out, "updates: 4 of 4 common modules differ"));
  const Matrix up_a = adapters.updates(true, ".up"), up_b = adapters.updates(false, ".up");
  CHECK(contains(line_of(text.out, "up"), "up 2 2 " + shown(norm(up_a)) + " " + shown(norm(up_b))));
  const std::string path = (adapters.directory / "a").string();
  const CommandResult same = lora_ok({"diff", path, path});
  CHECK(contains(same.out, "equal: 4 modules"));
}

namespace {

/// One bf16 and several f32 tensors in two blocks; `b` moves some of them by known amounts.
struct TwoCheckpoints {
  TempDir directory;
  TensorMap a, b;

  TwoCheckpoints() {
    for (const char* layer : {"layers.0", "layers.1", "layers.2"})
      for (const char* leaf : {".q.weight", ".up.weight"})
        a[layer + std::string(leaf)] = normal_tensor(layer + std::string(leaf), {12, 9});
    a["gone"] = normal_tensor("gone", {4});
    b = a;
    b.erase("gone");
    b["new"] = normal_tensor("new", {4});
  }
  void set(const std::string& name, const std::vector<float>& values) {
    b[name] = Tensor::from_f32(b.at(name).shape, values);
  }
  std::vector<std::string> written(std::vector<std::string> more = {}) {
    write_safetensors(directory / "a.safetensors", a, nullptr, WriteOptions{true, nullptr});
    write_safetensors(directory / "b.safetensors", b, nullptr, WriteOptions{true, nullptr});
    std::vector<std::string> arguments{"diff", (directory / "a.safetensors").string(),
                                       (directory / "b.safetensors").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

}  // namespace

TEST_CASE("diff of checkpoints: the table of tensors, blocks and what only one side has") {
  TwoCheckpoints pair;
  std::vector<float> moved = pair.a.at("layers.0.q.weight").to_f32();
  moved[5] += 0.5F;
  moved[70] -= 0.25F;
  pair.set("layers.0.q.weight", moved);
  std::vector<float> other = pair.a.at("layers.1.up.weight").to_f32();
  for (float& value : other) value *= 2;
  pair.set("layers.1.up.weight", other);
  CommandResult json = lora::testing::lora(pair.written({"--json"}));
  REQUIRE(json.code == 1);
  const Json& result = json.result();
  REQUIRE(*result.find("only_in_a") == Json(JsonArray{"gone"}));
  REQUIRE(*result.find("only_in_b") == Json(JsonArray{"new"}));
  REQUIRE(result.find("equal_tensors")->as_int() == 4);
  const auto compare = [&](const std::string& name) {
    const Matrix a = pair.a.at(name).to_f64(), b = pair.b.at(name).to_f64();
    const Matrix difference = minus(a, b);
    double largest = 0;
    for (const double value : difference) largest = std::max(largest, std::abs(value));
    const Json& entry = row(rows_of(result, "changed"), "tensor", name);
    CHECK(*entry.find("what") == Json("values"));
    CHECK(number(entry, "max_absolute") == Approx(largest).epsilon(1e-6));
    CHECK(number(entry, "difference") == Approx(norm(difference)).epsilon(1e-6));
    CHECK(number(entry, "norm_a") == Approx(norm(a)).epsilon(1e-6));
    CHECK(number(entry, "relative") == Approx(norm(difference) / norm(a)).epsilon(1e-6));
    CHECK(entry.find("changed_elements")->as_int() ==
          std::count_if(difference.begin(), difference.end(), [](double x) { return x != 0; }));
  };
  compare("layers.0.q.weight");
  compare("layers.1.up.weight");
  const Json& block = row(rows_of(result, "blocks"), "name", "layers.1");
  CHECK(block.find("tensors")->as_int() == 2);
  CHECK(block.find("changed")->as_int() == 1);
  const double doubled = norm(pair.a.at("layers.1.up.weight").to_f64());
  CHECK(number(block, "difference") == Approx(doubled).epsilon(1e-6));
  CHECK(number(block, "relative") == Approx(1).epsilon(1e-6));
  CHECK(row(rows_of(result, "blocks"), "name", "layers.2").find("changed")->as_int() == 0);

  const CommandResult text = lora::testing::lora(pair.written());
  INFO(text.out);
  CHECK(contains(text.out, "only in A (1):\n  gone\n"));
  CHECK(contains(text.out, "only in B (1):\n  new\n"));
  CHECK(contains(text.out, "2 tensors differ, 4 equal"));
  CHECK(contains(
      line_of(text.out, "layers.0.q.weight"),
      "values F32 [12, 9] F32 [12, 9] 0.5 " +
          cli::number_text(std::hypot(0.5, 0.25) / norm(pair.a.at("layers.0.q.weight").to_f64())) +
          " 2 of 108"));
  CHECK(contains(line_of(text.out, "layers.1"), "layers.1 2 1 "));
}

TEST_CASE("diff of checkpoints: how many representable values lie between the two") {
  TwoCheckpoints pair;
  pair.b = pair.a;
  const std::string name = "layers.0.q.weight";
  std::vector<float> values = pair.a.at(name).to_f32();
  const auto step = [](float value, int steps) {
    for (int i = 0; i < steps; ++i) value = std::nextafter(value, value + 1000);
    return value;
  };
  values[0] = step(values[0], 1);
  values[1] = step(values[1], 1);
  values[2] = step(values[2], 3);
  values[3] = step(values[3], 5);
  pair.set(name, values);
  CommandResult json = lora::testing::lora(pair.written({"--json"}));
  const JsonArray& ulps = rows_of(json.result(), "ulps");
  REQUIRE(ulps.size() == 1);
  REQUIRE(*ulps[0].find("dtype") == Json("F32"));
  // 104 equal, 2 by one step, 1 by two or three, 1 by four to seven.
  const JsonArray& counts = rows_of(ulps[0], "counts");
  for (std::size_t i = 0; i < counts.size(); ++i) {
    INFO(i);
    CHECK(counts[i].as_int() == (i == 0 ? 104 : i == 1 ? 2 : i < 4 ? 1 : 0));
  }
  REQUIRE(counts.size() > 4);
  const CommandResult text = lora::testing::lora(pair.written());
  INFO(text.out);
  REQUIRE(contains(text.out, "values by distance, in steps of F32:"));
  REQUIRE(line_of(text.out, "0") == "0 104");
  REQUIRE(contains(text.out, "1 tensor differs, 6 equal"));
  REQUIRE(contains(text.out, "  1       2\n"));
  REQUIRE(line_of(text.out, "2-3") == "2-3 1");
  REQUIRE(line_of(text.out, "4-7") == "4-7 1");
}

TEST_CASE("diff of checkpoints: the rank of a difference tells a merged update from another one") {
  TwoCheckpoints pair;
  pair.b = pair.a;
  const std::string merged = "layers.0.q.weight", tuned = "layers.1.q.weight";
  const Matrix u = normal_tensor("u", {12, 2}).to_f64(), v = normal_tensor("v", {2, 9}).to_f64();
  std::vector<float> values = pair.a.at(merged).to_f32();
  for (std::size_t i = 0; i < 12; ++i)
    for (std::size_t j = 0; j < 9; ++j)
      values[i * 9 + j] += static_cast<float>(u[2 * i] * v[j] + u[2 * i + 1] * v[9 + j]);
  pair.set(merged, values);
  values = pair.a.at(tuned).to_f32();
  const Matrix noise = normal_tensor("noise", {12, 9}).to_f64();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += static_cast<float>(noise[i]);
  pair.set(tuned, values);
  CommandResult json = lora::testing::lora(pair.written({"--rank", "--json"}));
  const JsonArray& changed = rows_of(json.result(), "changed");
  const Json& low = *row(changed, "tensor", merged).find("rank");
  REQUIRE(low.find("rank")->as_int() == 2);
  REQUIRE(low.find("low_rank")->as_bool() == true);
  const JsonArray& sigma = rows_of(low, "singular_values");
  double squares = 0;
  for (std::size_t i = 0; i < 2; ++i) squares += std::pow(sigma.at(i).as_double().value(), 2);
  const Matrix difference = minus(pair.a.at(merged).to_f64(), pair.b.at(merged).to_f64());
  REQUIRE(std::sqrt(squares) == Approx(norm(difference)).epsilon(1e-5));
  const Json& full = *row(changed, "tensor", tuned).find("rank");
  REQUIRE(full.find("rank")->as_int() == 9);
  REQUIRE(full.find("low_rank")->as_bool() == false);
  const CommandResult text = lora::testing::lora(pair.written({"--rank"}));
  REQUIRE(line_of(text.out, merged).ends_with(" 2 (low)"));
  REQUIRE(line_of(text.out, tuned).ends_with(" 9"));
  REQUIRE(contains(text.out, "as a merged LoRA is: 1 of 2 differences examined"));
}
