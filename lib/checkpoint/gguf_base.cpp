#include "checkpoint/gguf_base.h"

#include "checkpoint/gguf_families.h"

namespace lora {
namespace {

// Converters keep norms in F32 whatever the model had; where a narrower dtype holds their values
// too, it was the model's.
DType dtype_of(const std::vector<GgufWeight>& weights) {
  std::optional<DType> common;
  for (const GgufWeight& weight : weights) {
    if (weight.tensor->shape.size() < 2) continue;
    const auto storage = weight.tensor->format->storage;
    if (!storage || (common && *common != *storage)) return DType::f32;
    common = storage;
  }
  if (!common || *common == DType::f32) return DType::f32;
  for (const GgufWeight& weight : weights) {
    if (weight.tensor->shape.size() >= 2) continue;
    const std::vector<double> exact = load_gguf_weight(weight, DType::f64).to_f64();
    if (load_gguf_weight(weight, *common).to_f64() != exact) return DType::f32;
  }
  return *common;
}

void add_token_ids(const GgufFile& file, JsonObject& config) {
  for (const auto& [name, key] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                  {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                  {"pad_token_id", "tokenizer.ggml.padding_token_id"}}) {
    const auto id = file.integer(key);
    config[name] = id ? Json(*id) : Json();
  }
}

}  // namespace

GgufBase open_gguf_base(const std::filesystem::path& path) {
  GgufBase base;
  base.file = read_gguf(path);
  const GgufFile& file = base.file;
  const auto architecture = file.text("general.architecture");
  if (!architecture)
    throw gguf_fault(file, ErrorKind::malformed, "its metadata lacks general.architecture");
  GgufModel model = read_gguf_model(file, std::string(*architecture));
  base.model_type = std::string(model.model_type);
  base.weights = std::move(model.weights);
  base.config = std::move(model.config);
  base.dtype = dtype_of(base.weights);
  add_token_ids(file, base.config);
  base.tokenizer = gguf_tokenizer_files(file, base.notes);
  return base;
}

}  // namespace lora
