#include "text/replacement.h"

#include <algorithm>

#include "text/normalizer.h"
#include "text/regex_segments.h"

namespace lora::text {

Replacement::Replacement(const Component& part, const std::string& context)
    : content_(part.string("content")) {
  const Json* plain = part.member("pattern").find("String");
  if (plain != nullptr && plain->is_string() && !plain->as_string()->empty()) {
    plain_ = *plain->as_string();
  } else {
    regex_.emplace(part.pattern("pattern"), context);
  }
}

class Replacement::Output {
 public:
  Output(std::string_view source, std::size_t start) : source_(source), start_(start) {}

  std::string_view source() const { return source_; }

  void copy(std::size_t begin, std::size_t end) {
    result_.text.append(source_, begin, end - begin);
    if (begin < start_) result_.start = result_.text.size() - (end - std::min(end, start_));
  }

  // What takes the place of several characters counts as made of the last of them.
  void replace(std::size_t end, const std::string& content) {
    require_growth(source_.size(), result_.text.size() + content.size());
    result_.text += content;
    if (start_ > 0 && end <= start_) result_.start = result_.text.size();
  }

  Result take() { return std::move(result_); }

 private:
  std::string_view source_;
  std::size_t start_;
  Result result_{{}, 0};
};

Replacement::Result Replacement::apply(std::string_view text, std::size_t start) const {
  Output out(text, start);
  if (regex_) {
    replace_matches(out);
  } else {
    replace_plain(out);
  }
  return out.take();
}

void Replacement::replace_plain(Output& out) const {
  const std::string_view text = out.source();
  std::size_t covered = 0;
  for (std::size_t at = text.find(plain_); at != std::string_view::npos;
       at = text.find(plain_, covered)) {
    out.copy(covered, at);
    covered = at + plain_.size();
    out.replace(covered, content_);
  }
  out.copy(covered, text.size());
}

void Replacement::replace_matches(Output& out) const {
  each_segment(*regex_, out.source(), [&](const Segment& segment) {
    if (segment.is_match) {
      out.replace(segment.end, content_);
    } else {
      out.copy(segment.begin, segment.end);
    }
  });
}

}  // namespace lora::text
