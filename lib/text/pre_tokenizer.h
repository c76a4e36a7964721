// Cutting text into the pieces that the model works within.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

/// A stretch of text; valid during the call only that hands it over.
struct Piece {
  std::string_view text;
  std::size_t start = 0;  ///< as in NormalText

  Piece part(std::size_t begin, std::size_t end) const {
    return {text.substr(begin, end - begin), start - std::min(start, begin)};
  }
};

/// Receives pieces in order, which are never empty. A plain function pointer with its context:
/// std::function costs more than the scanning of a word.
struct PieceSink {
  void* context;
  void (*receive)(void* context, const Piece& piece);
  void operator()(const Piece& piece) const { receive(context, piece); }
};

class PreTokenStep {
 public:
  virtual ~PreTokenStep() = default;
  virtual void split(const Piece& piece, const PieceSink& sink) const = 0;

  /// Of text that is cut between an ASCII letter and a blank before it comes here.
  enum class Cut {
    matters,  ///< other pieces may come out
    passes,   ///< the pieces are the same, but for this cut
    is_made,  ///< the pieces are the same: this step cuts there itself
  };
  virtual Cut cut_before_blank() const { return Cut::matters; }
};

/// The steps of a `pre_tokenizer` object.
class PreTokenizer {
 public:
  /// A null document cuts nothing. `takes_bytes`: the model can take raw bytes for the characters
  /// that ByteLevel makes of them. `context` names the file. Throws Error(unsupported | malformed).
  PreTokenizer(const Json& document, bool takes_bytes, const std::string& context);

  /// The last step is ByteLevel and leaves its characters out: pieces are raw bytes.
  bool gives_bytes() const { return gives_bytes_; }

  /// A text may be cut between any ASCII letter and a blank, and each part split by itself.
  bool cuts_before_blanks() const;

  void split(const Piece& piece, const PieceSink& sink) const { run(0, piece, sink); }

 private:
  void add(const Json& document, const std::string& context);
  void run(std::size_t step, const Piece& piece, const PieceSink& sink) const;

  std::vector<std::unique_ptr<PreTokenStep>> steps_;
  bool gives_bytes_ = false;
};

}  // namespace lora::text
