#include <algorithm>

#include "adapter/config_fields.h"

namespace lora {
namespace {

using Reader = FieldReader;
using Config = AdapterConfig;

void read_bias(const Reader& reader, Config& config) {
  const std::string name = reader.one_of("bias", "none", {"none", "all", "lora_only"});
  config.bias = name == "all"         ? BiasMode::all
                : name == "lora_only" ? BiasMode::lora_only
                                      : BiasMode::none;
}

void read_dropout(const Reader& reader, Config& config) {
  const double dropout = reader.number("lora_dropout", 0);
  if (dropout < 0 || dropout >= 1)
    reader.refuse("lora_dropout", *reader.find("lora_dropout"), "a number in [0, 1)");
  config.dropout = dropout;
}

void read_init(const Reader& reader, Config& config) {
  const Json* init = reader.find("init_lora_weights");
  if (init == nullptr) return;
  if (!init->is_bool() && !init->is_string())
    reader.refuse("init_lora_weights", *init, "true, false or a string");
  config.init_lora_weights = *init;
}

void read_mapping(const Reader& reader, Config& config) {
  const Json* mapping = reader.find("auto_mapping");
  if (mapping == nullptr) return;
  if (!mapping->is_null() && !mapping->is_object())
    reader.refuse("auto_mapping", *mapping, "an object or null");
  config.auto_mapping = *mapping;
}

}  // namespace

const std::vector<TypedMember>& typed_members() {
  static const std::vector<TypedMember> members{
      {"task_type", [](const Reader& r, Config& c) { c.task_type = r.text_or_null("task_type"); }},
      {"peft_version",
       [](const Reader& r, Config& c) { c.peft_version = r.text_or_null("peft_version"); }},
      {"base_model_name_or_path",
       [](const Reader& r, Config& c) {
         c.base_model_name_or_path = r.text_or_null("base_model_name_or_path");
       }},
      {"revision", [](const Reader& r, Config& c) { c.revision = r.text_or_null("revision"); }},
      {"r", [](const Reader& r, Config& c) { c.rank = r.positive("r", 8); }},
      {"lora_alpha", [](const Reader& r, Config& c) { c.alpha = r.number("lora_alpha", 8); }},
      {"lora_dropout", read_dropout},
      {"use_rslora",
       [](const Reader& r, Config& c) { c.use_rslora = r.boolean("use_rslora", false); }},
      {"use_dora", [](const Reader& r, Config& c) { c.use_dora = r.boolean("use_dora", false); }},
      {"lora_bias",
       [](const Reader& r, Config& c) { c.lora_bias = r.boolean("lora_bias", false); }},
      {"fan_in_fan_out",
       [](const Reader& r, Config& c) { c.fan_in_fan_out = r.boolean("fan_in_fan_out", false); }},
      {"bias", read_bias},
      {"target_modules",
       [](const Reader& r, Config& c) { c.target_modules = r.selector("target_modules"); }},
      {"exclude_modules",
       [](const Reader& r, Config& c) { c.exclude_modules = r.selector("exclude_modules"); }},
      {"rank_pattern",
       [](const Reader& r, Config& c) { c.rank_pattern = r.pattern("rank_pattern", true); }},
      {"alpha_pattern",
       [](const Reader& r, Config& c) { c.alpha_pattern = r.pattern("alpha_pattern", false); }},
      {"modules_to_save",
       [](const Reader& r, Config& c) {
         c.modules_to_save = r.names_or_null("modules_to_save", false);
       }},
      {"layers_to_transform",
       [](const Reader& r, Config& c) {
         c.layers_to_transform = r.indices_or_null("layers_to_transform");
       }},
      {"layers_pattern",
       [](const Reader& r, Config& c) {
         c.layers_pattern = r.names_or_null("layers_pattern", true);
       }},
      {"init_lora_weights", read_init},
      {"auto_mapping", read_mapping}};
  return members;
}

bool is_typed_field(std::string_view name) {
  return name == "peft_type" ||
         std::any_of(typed_members().begin(), typed_members().end(),
                     [&](const TypedMember& member) { return member.field == name; });
}

}  // namespace lora
