#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "checkpoint/natural_order.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/init_base_plan.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr std::array<const char*, 12> kCarried{"tokenizer.json",
                                               "tokenizer_config.json",
                                               "special_tokens_map.json",
                                               "added_tokens.json",
                                               "tokenizer.model",
                                               "vocab.json",
                                               "merges.txt",
                                               "vocab.txt",
                                               "spiece.model",
                                               "chat_template.jinja",
                                               "chat_template.json",
                                               "generation_config.json"};

// Endings of the tensors that quantisers store in place of a weight.
constexpr std::array<std::string_view, 8> kQuantised{
    ".qweight", ".qzeros",    ".SCB",          ".weight_format",
    ".absmax",  ".quant_map", ".weight_scale", ".weight_packed"};

}  // namespace

void refuse_quantised(const Checkpoint& source, const std::string& doing) {
  const std::string path = source.path.string();
  if (source.config && !source.config->quantization.empty())
    throw Error(ErrorKind::unsupported,
                "cannot " + doing + " " + path + ": its weights are quantised with " +
                    source.config->quantization + ", expected plain float weights")
        .in_file(path)
        .with_hint("dequantise the model first and drop quantization_config from its config.json");
  for (const auto& [name, tensor] : source.tensors)
    for (const std::string_view ending : kQuantised)
      if (name.ends_with(ending))
        throw Error(ErrorKind::unsupported,
                    "cannot " + doing + " " + path + ": tensor " + name +
                        " belongs to quantised weights, expected plain float weights")
            .in_file(path)
            .in_tensor(name);
}

std::string config_text_of(const Checkpoint& source, std::optional<DType> dtype, bool is_replaced) {
  std::string text;
  if (source.is_inferred || (source.config->mlp && is_replaced)) {
    text = dump_json(Json(mlp_document(*source.config->mlp, source.config->dtype))) + "\n";
  } else {
    const auto file = MappedFile::open(source.directory / "config.json");
    text.assign(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  }
  if (dtype) {
    const std::string name = config_dtype_name(*dtype);
    if (name != source.config->dtype) text = with_config_dtype(text, name);
  }
  return text;
}

std::vector<stdfs::path> carried_files(const stdfs::path& directory) {
  std::vector<stdfs::path> files;
  std::error_code ignored;
  if (directory.empty()) return files;
  for (const char* name : kCarried)
    if (stdfs::is_regular_file(directory / name, ignored)) files.push_back(directory / name);
  return files;
}

BasePlan plan_import(const InitBaseOptions& options) {
  OpenCheckpointOptions opening;
  opening.activation = options.activation;
  opening.final_activation = options.final_activation;
  opening.config_required = true;
  auto source =
      std::make_shared<const Checkpoint>(open_checkpoint(*options.from, opening, options.hf_cache));
  refuse_quantised(*source, "import");

  BasePlan plan;
  plan.model_type = source->config->model_type;
  plan.config_text =
      config_text_of(*source, options.dtype,
                     options.activation.has_value() || options.final_activation.has_value());
  plan.aliases = source->aliases;
  plan.notes = source->notes;
  plan.carried = carried_files(source->directory);

  std::vector<const std::string*> names;
  for (const auto& [name, tensor] : source->tensors) names.push_back(&name);
  std::sort(names.begin(), names.end(),
            [](const auto* a, const auto* b) { return natural_less(*a, *b); });
  std::size_t kept = 0;
  for (const std::string* name : names) {
    const Tensor& tensor = source->tensors.at(*name);
    const bool converts = options.dtype && is_float(tensor.dtype);
    if (options.dtype && !converts) ++kept;
    const DType dtype = converts ? *options.dtype : tensor.dtype;
    plan.tensors.push_back({*name, dtype, tensor.shape, [source, name, dtype] {
                              return source->tensors.at(*name).cast(dtype);
                            }});
  }
  if (kept != 0)
    plan.notes.push_back(std::to_string(kept) +
                         " tensors are of no float dtype and stay as they are");
  return plan;
}

}  // namespace lora
