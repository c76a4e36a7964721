#include "support/safetensors_bytes.h"
#include "support/verify_sample.h"

using namespace lora;
using namespace lora::testing;

namespace {

const std::string kPrefix = "base_model.model.";

TensorMap toy_base() {
  TensorMap tensors;
  for (const char* layer : {"0", "1", "2"})
    for (const char* leaf : {"q", "v"})
      tensors["model.layers." + std::string(layer) + "." + leaf + ".weight"] =
          normal_tensor(layer, {5, 6});
  tensors["norm.weight"] = normal_tensor("n", {6});
  tensors["norm.bias"] = normal_tensor("n", {6});
  tensors["head.weight"] = normal_tensor("h", {3, 6});
  tensors["head.bias"] = normal_tensor("h", {3});
  return tensors;
}

TensorMap on_q() {
  return pairs({"model.layers.0.q", "model.layers.1.q", "model.layers.2.q"}, 4, 6, 5);
}

}  // namespace

TEST_CASE("LV301: every unexplained key has its reason, nearest module and layers in one line") {
  VerifyCase sample;
  sample.set_base(toy_base());
  TensorMap tensors = on_q();
  for (const char* path : {"model.layers.0.v", "model.layers.1.v", "other.layers.3.q"})
    add_pair(tensors, path, 4, 6, 5);
  tensors[kPrefix + "model.layers.0.q.lora_C.weight"] = normal_tensor("c", {4, 4});
  const VerifyReport report = sample.run(config_on({"q"}), tensors);
  require_rule(report, "LV301", Severity::error, "tensors for 4 sites");
  require_rule(report, "LV301", Severity::error,
               "model.layers.0-1.v (not targeted: target_modules does not select it)");
  require_rule(report, "LV301", Severity::error,
               "other.layers.3.q (not in the base, nearest model.layers.");
  require_rule(report, "LV301", Severity::error, "lora_C.weight (unknown suffix)");
  forbid_rule(sample.run(config_on({"q"}), on_q()), "LV301");
}

TEST_CASE("LV301: the head of a tied model and a head that the task adds are explained") {
  VerifyCase sample;
  TensorMap base = toy_base();
  base["embed_tokens.weight"] = normal_tensor("e", {9, 6});
  base["lm_head.weight"] = normal_tensor("e", {9, 6});
  sample.set_base(base);
  AdapterConfig config = config_on({"q", "embed_tokens"});
  TensorMap tensors = on_q();
  const Tensor a = normal_tensor("ea", {4, 9}), b = normal_tensor("eb", {6, 4});
  tensors[kPrefix + "embed_tokens.lora_embedding_A"] = a;
  tensors[kPrefix + "embed_tokens.lora_embedding_B"] = b;
  add_pair(tensors, "lm_head", 4, 6, 9);
  require_rule(sample.run(config, tensors), "LV301", Severity::error,
               "lm_head (not targeted: target_modules does not select it)");
  config.other["ensure_weight_tying"] = true;
  forbid_rule(sample.run(config, tensors), "LV301");
}

TEST_CASE("LV302: missing parts are counted and grouped by layer and kind") {
  VerifyCase sample;
  sample.set_base(toy_base());
  AdapterConfig config = config_on({"q", "v"});
  require_rule(sample.run(config, on_q()), "LV302", Severity::error,
               "3 of 6 expected modules have no tensors: model.layers.0-2.v");
  config = config_on({"q"});
  config.modules_to_save = {"head"};
  TensorMap tensors = on_q();
  require_rule(sample.run(config, tensors), "LV302", Severity::error, "head (module to save)");
  tensors[kPrefix + "head.weight"] = normal_tensor("h", {3, 6});
  require_rule(sample.run(config, tensors), "LV302", Severity::error, "head.bias (module to save)");
  tensors[kPrefix + "head.bias"] = normal_tensor("h", {3});
  const VerifyReport complete = sample.run(config, tensors);
  forbid_rule(complete, "LV302");
  require_healthy(complete);
}

TEST_CASE("LV302: biases and token rows that the configuration asks for") {
  VerifyCase sample;
  sample.set_base(toy_base());
  AdapterConfig config = config_on({"q"});
  config.bias = BiasMode::all;
  TensorMap tensors = on_q();
  require_rule(sample.run(config, tensors), "LV302", Severity::error, "norm.bias (bias)");
  tensors[kPrefix + "norm.bias"] = normal_tensor("n", {6});
  tensors[kPrefix + "head.bias"] = normal_tensor("h", {3});
  // What PEFT also writes with a module to save.
  tensors[kPrefix + "head.original_module.bias"] = normal_tensor("h", {3});
  tensors[kPrefix + "head.modules_to_save.bias"] = normal_tensor("h", {3});
  tensors[kPrefix + "head.weight"] = normal_tensor("h", {3, 6});
  config.modules_to_save = {"head"};
  require_healthy(sample.run(config, tensors));
  config.other["trainable_token_indices"] = JsonObject{{"embed_tokens", JsonArray{1}}};
  require_rule(sample.run(config, tensors), "LV302", Severity::error, "embed_tokens (token rows)");
}

TEST_CASE("LV303: unpaired and misshapen tensors are one finding") {
  VerifyCase sample;
  TensorMap tensors = on_q();
  tensors.erase(kPrefix + "model.layers.0.q.lora_A.weight");
  tensors.erase(kPrefix + "model.layers.1.q.lora_B.weight");
  const VerifyReport report = sample.run(config_on({"q"}), tensors);
  require_rule(report, "LV303", Severity::error, "2 unpaired or misshaped tensors");
  require_rule(report, "LV303", Severity::error, "lora_A of model.layers.0.q is missing");
  forbid_rule(sample.run(config_on({"q"}), on_q()), "LV303");
}

TEST_CASE("LV304: two names of one tensor, and one name twice in the header") {
  VerifyCase sample;
  TensorMap tensors = on_q();
  tensors[kPrefix + "model.layers.0.q.lora_A.default.weight"] = normal_tensor("x", {4, 6});
  require_rule(sample.run(config_on({"q"}), tensors), "LV304", Severity::error,
               "second name of base_model.model.model.layers.0.q.lora_A.weight");
  require_rule(sample.run(config_on({"q"}), tensors), "LV304", Severity::error,
               "with different contents");
  forbid_rule(sample.run(config_on({"q"}), on_q()), "LV304");
  const auto twice = [&](std::string_view data) {
    write_file(sample.adapter() / kAdapterWeightsName,
               safetensors_bytes(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                 data));
    return sample.again();
  };
  require_rule(twice("ab"), "LV304", Severity::error,
               "x twice, at bytes [0, 1) and [1, 2) of the data, with different contents");
  require_rule(twice("aa"), "LV304", Severity::error, "with equal contents");
  REQUIRE(!twice("aa").is_readable);
}

TEST_CASE("LV308: undeclared base parameters are hostile until declared") {
  VerifyCase sample;
  TensorMap tensors = on_q();
  tensors[kPrefix + "norm.weight"] = normal_tensor("evil", {6});
  require_rule(sample.run(config_on({"q"}), tensors), "LV308", Severity::error, "norm.weight");
  sample.set_base(toy_base());
  require_rule(sample.run(config_on({"q"}), tensors), "LV308", Severity::error, "norm.weight");
  AdapterConfig config = config_on({"q"});
  config.modules_to_save = {"norm"};
  tensors[kPrefix + "norm.bias"] = normal_tensor("fine", {6});
  forbid_rule(sample.run(config, tensors), "LV308");
}

TEST_CASE("LV308: what the base does not have cannot overwrite it") {
  VerifyCase sample;
  sample.set_base(toy_base());
  TensorMap tensors = on_q();
  tensors[kPrefix + "elsewhere.weight"] = normal_tensor("x", {6});
  const VerifyReport report = sample.run(config_on({"q"}), tensors);
  forbid_rule(report, "LV308");
  require_rule(report, "LV301", Severity::error, "elsewhere.weight");
}

TEST_CASE("LV309: shapes that do not fit come with the likely cause, in one table") {
  VerifyCase sample;
  sample.set_base(toy_base());
  const TensorMap wide =
      pairs({"model.layers.0.q", "model.layers.1.q", "model.layers.2.q"}, 4, 7, 5);
  const VerifyReport report = sample.run(config_on({"q"}), wide);
  require_rule(report, "LV309", Severity::error,
               "model.layers.0-2.q (update [5, 7], base [5, 6]: a base of another size)");
  const TensorMap turned =
      pairs({"model.layers.0.q", "model.layers.1.q", "model.layers.2.q"}, 4, 5, 6);
  require_rule(sample.run(config_on({"q"}), turned), "LV309", Severity::error, "transposed layer");
  forbid_rule(sample.run(config_on({"q"}), on_q()), "LV309");
}
