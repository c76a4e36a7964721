// A model in a GGUF file as the Hugging Face model that it was converted from.
//
// gguf_families.h says which architectures there are. What llama.cpp's converter does to a weight
// is undone by load_gguf_weight: rows that stand in another order, norms that have grown by one,
// matrices that were turned, experts that share a tensor.
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

/// In which order a file has the rows of a matrix or the values of a bias.
enum class GgufRows {
  same,
  rotary,  ///< rotary pairs side by side; the model has two halves a head
  thirds,  ///< all queries, all keys, all values; the model has the three of each head together
};

struct GgufWeight {
  std::string name;                    ///< base_name
  const GgufTensor* tensor = nullptr;  ///< into GgufBase::file
  std::vector<std::int64_t> shape;     ///< of the model's tensor
  GgufRows rows = GgufRows::same;
  std::int64_t heads = 0;      ///< that the order of the rows is about
  bool is_transposed = false;  ///< the model has columns where the file has rows
  bool adds_one = false;       ///< the file has each value plus one
  std::int64_t part = 0;       ///< which of the model's tensors that stand one behind another
};

struct GgufBase {
  GgufFile file;
  std::string model_type;  ///< as transformers calls it
  JsonObject config;       ///< config.json but for `dtype`
  std::vector<GgufWeight> weights;
  /// Holds every weight exactly: the dtype of the matrices where all are plain and of one, else
  /// F32.
  DType dtype = DType::f32;
  /// Files of the tokenizer, by name; empty where it cannot be rebuilt, which a note explains.
  std::vector<std::pair<std::string, std::string>> tokenizer;
  std::vector<std::string> notes;
};

/// Every tensor of the file is accounted for, and every one that the model needs is there in its
/// shape. Throws whatever read_gguf throws; Error(unsupported) for other architectures and for
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
