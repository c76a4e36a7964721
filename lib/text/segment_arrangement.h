// What happens to the matches that a text is cut at.
#pragma once

#include <optional>
#include <string_view>

#include "text/pre_tokenizer.h"
#include "text/regex_segments.h"

namespace lora::text {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

inline std::optional<Behavior> behavior_named(std::string_view name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  return std::nullopt;
}

/// Takes segments that cover the piece without holes, in order, and holds one back as long as the
/// next may join it.
class Arrangement {
 public:
  Arrangement(const Piece& piece, Behavior behavior, const PieceSink& sink)
      : piece_(piece), behavior_(behavior), sink_(sink) {}

  void add(const Segment& segment) {
    if (behavior_ == Behavior::removed && segment.is_match) return;
    if (joins(segment)) {
      held_.end = segment.end;
    } else {
      flush();
      held_ = segment;
      holds_ = true;
    }
    held_.is_match = segment.is_match;
  }

  void flush() {
    if (holds_ && held_.begin < held_.end) sink_(piece_.part(held_.begin, held_.end));
    holds_ = false;
  }

 private:
  bool joins(const Segment& segment) const {
    if (!holds_) return false;
    if (behavior_ == Behavior::merged_with_previous) return segment.is_match && !held_.is_match;
    if (behavior_ == Behavior::merged_with_next) return !segment.is_match && held_.is_match;
    return behavior_ == Behavior::contiguous && segment.is_match == held_.is_match;
  }

  const Piece& piece_;
  Behavior behavior_;
  const PieceSink& sink_;
  Segment held_{};  // `is_match` of its last part
  bool holds_ = false;
};

/// Cuts a piece at the characters for which `is_match` holds, each a match of its own.
template <typename IsMatch>
void split_at_characters(const Piece& piece, Behavior behavior, const PieceSink& sink,
                         IsMatch&& is_match) {
  Arrangement segments(piece, behavior, sink);
  std::size_t begin = 0;
  std::size_t length = 0;
  for (std::size_t i = 0; i < piece.text.size(); i += length) {
    if (!is_match(utf8_at(piece.text, i, length))) continue;
    if (begin < i) segments.add({begin, i, false});
    segments.add({i, i + length, true});
    begin = i + length;
  }
  if (begin < piece.text.size()) segments.add({begin, piece.text.size(), false});
  segments.flush();
}

}  // namespace lora::text
