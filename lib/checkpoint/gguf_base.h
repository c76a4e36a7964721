// A model in a GGUF file as the Hugging Face model that it was converted from.
//
// Architecture "llama", which is how llama.cpp calls Mistral models too. The converter orders the
// rows of q_proj and k_proj for rotary pairs that lie side by side; load_gguf_weight puts them back
// into two halves a head, as transformers has them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/tensor.h"
#include "lora/format/gguf.h"
#include "lora/format/json.h"

namespace lora {

struct GgufWeight {
  std::string name;                    ///< base_name
  const GgufTensor* tensor = nullptr;  ///< into GgufBase::file
  std::int64_t rotary_heads = 0;       ///< 0: rows stay where they are
};

struct GgufBase {
  GgufFile file;
  JsonObject config;  ///< config.json but for `dtype`
  std::vector<GgufWeight> weights;
  /// Holds every weight exactly: the dtype of the matrices where all are plain and of one, else
  /// F32.
  DType dtype = DType::f32;
  /// Files of the tokenizer, by name; empty where it cannot be rebuilt, which a note explains.
  std::vector<std::pair<std::string, std::string>> tokenizer;
  std::vector<std::string> notes;
};

/// Every tensor of the file is accounted for, and every one that the model needs is there in its
/// shape. Throws whatever read_gguf throws; Error(unsupported) for other architectures, experts,
/// rotary variants that the metadata does not fully describe; Error(malformed) for metadata and
/// tensors that contradict each other.
GgufBase open_gguf_base(const std::filesystem::path& path);

/// The weight in `dtype` (a float), blocks widened and rounded to nearest even, on up to `threads`
/// threads (0: all).
Tensor load_gguf_weight(const GgufWeight& weight, DType dtype, int threads = 0);

/// The tokenizer's files from the metadata; adds a note to `notes` and gives none where its kind is
/// not known.
std::vector<std::pair<std::string, std::string>> gguf_tokenizer_files(
    const GgufFile& file, std::vector<std::string>& notes);

}  // namespace lora
