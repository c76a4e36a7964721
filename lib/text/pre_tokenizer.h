// Cutting text into the pieces that BPE merges within.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

/// Receives pieces in order; a piece is valid during the call only and never empty. A plain
/// function pointer with its context: std::function costs more than the scanning of a word.
struct PieceSink {
  void* context;
  void (*receive)(void* context, std::string_view piece);
  void operator()(std::string_view piece) const { receive(context, piece); }
};

class PreTokenStep {
 public:
  virtual ~PreTokenStep() = default;
  virtual void split(std::string_view text, const PieceSink& sink) const = 0;
};

/// The steps of a `pre_tokenizer` object. The last one is always ByteLevel, whose mapping to
/// printable characters is left out: pieces are raw bytes.
class PreTokenizer {
 public:
  /// `context` names the file. Throws Error(unsupported | malformed).
  PreTokenizer(const Json& document, const std::string& context);

  void split(std::string_view text, const PieceSink& sink) const { run(0, text, sink); }

 private:
  void add(const Json& document, const std::string& context);
  void run(std::size_t step, std::string_view text, const PieceSink& sink) const;

  std::vector<std::unique_ptr<PreTokenStep>> steps_;
  bool has_byte_level_ = false;
};

}  // namespace lora::text
