// The architectures that a GGUF file may have: configuration and weights of the model that
// transformers knows. Each follows what llama.cpp's converter writes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_base.h"
#include "checkpoint/gguf_metadata.h"

namespace lora {

struct GgufModel {
  std::string_view model_type;
  JsonObject config;  ///< without dtype and ids of tokens
  std::vector<GgufWeight> weights;
};

/// Throws as open_gguf_base.
GgufModel read_gguf_model(const GgufFile& file, const std::string& architecture);

/// Decoders of Llama's kind; `architecture` is one of gguf_decoder_names().
GgufModel read_gguf_decoder(const GgufFile& file, const std::string& architecture);
std::vector<std::string> gguf_decoder_names();

GgufModel read_gguf_gpt2(const GgufFile& file);
GgufModel read_gguf_gpt_neox(const GgufFile& file);

}  // namespace lora
