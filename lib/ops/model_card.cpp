#include "ops/model_card.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "lora/format/json.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

constexpr std::string_view kUnknown = "Not recorded.";

// The outline of PEFT's card; sections without facts say that they have none.
constexpr std::array<std::string_view, 35> kOutline{
    "## Model Details",
    "### Model Description",
    "### Model Sources [optional]",
    "## Uses",
    "### Direct Use",
    "### Downstream Use [optional]",
    "### Out-of-Scope Use",
    "## Bias, Risks, and Limitations",
    "### Recommendations",
    "## How to Get Started with the Model",
    "## Training Details",
    "### Training Data",
    "### Training Procedure",
    "#### Preprocessing [optional]",
    "#### Training Hyperparameters",
    "#### Speeds, Sizes, Times [optional]",
    "## Evaluation",
    "### Testing Data, Factors & Metrics",
    "#### Testing Data",
    "#### Factors",
    "#### Metrics",
    "### Results",
    "#### Summary",
    "## Model Examination [optional]",
    "## Environmental Impact",
    "## Technical Specifications [optional]",
    "### Model Architecture and Objective",
    "### Compute Infrastructure",
    "#### Hardware",
    "#### Software",
    "## Citation [optional]",
    "## Glossary [optional]",
    "## More Information [optional]",
    "## Model Card Authors [optional]",
    "## Model Card Contact",
};

std::string yaml_text(const std::string& text) {
  const bool is_plain =
      !text.empty() &&
      text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
          "0123456789._/:-") == std::string::npos &&
      text.find_first_of("/-") != std::string::npos && text.back() != ':' &&
      std::string_view("0123456789-:.").find(text.front()) == std::string_view::npos;
  // A JSON string is a YAML string in double quotes.
  return is_plain ? text : dump_json(Json(text));
}

std::string front_matter(const AdapterConfig& config, bool is_transformers) {
  const auto& base = config.base_model_name_or_path;
  std::string text = "---\n";
  if (base) text += "base_model: " + yaml_text(*base) + "\n";
  text += "library_name: peft\n";
  if (config.task_type == "CAUSAL_LM") text += "pipeline_tag: text-generation\n";
  text += "tags:\n";
  if (base) text += "- " + yaml_text("base_model:adapter:" + *base) + "\n";
  text += "- lora\n";
  if (is_transformers) text += "- transformers\n";
  return text + "---\n";
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string description(const Adapter& adapter) {
  const AdapterConfig& config = adapter.config;
  std::string text = "LoRA factors for " + std::to_string(adapter.modules.size()) + " modules" +
                     (config.use_dora ? " with DoRA magnitudes" : "") + ".\n\n";
  text += "- **Base:** " + config.base_model_name_or_path.value_or("not recorded") + "\n";
  if (config.revision) text += "- **Revision of the base:** " + *config.revision + "\n";
  text += "- **Task:** " + config.task_type.value_or("not recorded") + "\n";
  text += "- **Rank:** " + std::to_string(config.rank) + "\n";
  text += "- **Alpha:** " + rules::figure(config.alpha) +
          (config.use_rslora ? ", divided by the square root of the rank (rsLoRA)" : "") + "\n";
  if (const auto* names = std::get_if<std::vector<std::string>>(&config.target_modules))
    text += "- **Target modules:** " + joined(*names) + "\n";
  if (const auto* expression = std::get_if<std::string>(&config.target_modules))
    text += "- **Target modules:** `" + *expression + "`\n";
  if (!config.modules_to_save.empty())
    text += "- **Saved modules:** " + joined(config.modules_to_save) + "\n";
  return text;
}

std::string sizes(const Adapter& adapter) {
  std::uint64_t values = 0, bytes = 0;
  std::map<std::string, std::size_t> dtypes;
  for (const auto& [key, tensor] : adapter.tensors) {
    values += static_cast<std::uint64_t>(tensor.numel());
    bytes += tensor.bytes.size();
    ++dtypes[std::string(to_string(tensor.dtype))];
  }
  std::string text = std::to_string(adapter.tensors.size()) + " tensors, " +
                     std::to_string(values) + " values, " + std::to_string(bytes) + " bytes";
  for (const auto& [dtype, count] : dtypes) text += ", " + std::to_string(count) + " " + dtype;
  return text + "\n";
}

std::string facts(std::string_view heading, const Adapter& adapter) {
  if (heading == "### Model Description") return description(adapter);
  if (heading == "#### Speeds, Sizes, Times [optional]") return sizes(adapter);
  if (heading == "#### Training Hyperparameters")
    return "LoRA dropout " + rules::figure(adapter.config.dropout) + ".\n";
  if (heading == "## How to Get Started with the Model")
    return "Load the base, then this folder with `PeftModel.from_pretrained(base, FOLDER)`, or run "
           "`lora load FOLDER --base BASE`.\n";
  return {};
}

std::size_t level_of(std::string_view heading) { return heading.find(' '); }

}  // namespace

std::string model_card(const Adapter& adapter, bool is_transformers) {
  const AdapterConfig& config = adapter.config;
  std::string text =
      front_matter(config, is_transformers) + "\n# Model Card for a LoRA adapter" +
      (config.base_model_name_or_path ? " of " + *config.base_model_name_or_path : std::string()) +
      "\n\n";
  for (std::size_t i = 0; i < kOutline.size(); ++i) {
    const std::string known = facts(kOutline[i], adapter);
    const bool has_sections =
        i + 1 < kOutline.size() && level_of(kOutline[i + 1]) > level_of(kOutline[i]);
    text += std::string(kOutline[i]) + "\n\n";
    if (!known.empty()) {
      text += known + "\n";
    } else if (!has_sections) {
      text += std::string(kUnknown) + "\n\n";
    }
  }
  return text + "### Framework versions\n\n- PEFT " + config.peft_version.value_or("0.21.2") + "\n";
}

}  // namespace lora
