// A text as matches of a pattern and what lies between them, in the tokenizers package's way.
#pragma once

#include <cstddef>
#include <string_view>

#include "text/regex.h"
#include "text/utf8.h"

namespace lora::text {

struct Segment {
  std::size_t begin;
  std::size_t end;
  bool is_match;
};

/// Hands the segments over in order; together they are the text.
template <typename Receive>
void each_segment(const Regex& regex, std::string_view text, Receive&& receive) {
  std::size_t covered = 0;
  RegexMatch match;
  RegexSearch search(regex, text);
  for (std::size_t from = 0; !text.empty() && from <= text.size() && search.find(from, match);) {
    const bool is_empty = match.begin == match.end;
    // An empty match right after the previous match is no match of its own.
    if (!(is_empty && match.begin == covered && covered != 0)) {
      if (covered != match.begin) receive(Segment{covered, match.begin, false});
      receive(Segment{match.begin, match.end, true});
      covered = match.end;
    }
    from = match.end;
    if (is_empty)
      from += from < text.size() ? utf8_length(static_cast<unsigned char>(text[from])) : 1;
  }
  if (covered != text.size()) receive(Segment{covered, text.size(), false});
}

}  // namespace lora::text
