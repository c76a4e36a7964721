#include "text/character_steps.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "text/normal_forms.h"
#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

constexpr std::uint32_t kDropped = 0xFFFFFFFF;

// `map` gives the character that takes the place of one, or kDropped.
template <typename Map>
void map_characters(NormalText& normal, Map&& map) {
  std::string out;
  out.reserve(normal.text.size());
  std::size_t start = 0;
  std::size_t length = 0;
  for (std::size_t i = 0; i < normal.text.size(); i += length) {
    const std::uint32_t code_point = utf8_at(normal.text, i, length);
    const std::uint32_t mapped = map(code_point);
    if (mapped == code_point) {
      out.append(normal.text, i, length);
    } else if (mapped != kDropped) {
      append_utf8(out, mapped);
    }
    if (i < normal.start) start = out.size();
  }
  normal.text = std::move(out);
  normal.start = start;
}

bool is_chinese(std::uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

std::uint32_t without_control(std::uint32_t c) {
  if (c < 0x80)
    return c < 0x20 ? (c == '\t' || c == '\n' || c == '\r' ? ' ' : kDropped)
                    : (c == 0x7F ? kDropped : c);
  if (contains(control_ranges(), c)) return kDropped;
  return is_white_space(c) ? ' ' : c;
}

class BertNormalizer : public NormalizerStep {
 public:
  explicit BertNormalizer(const Component& part)
      : cleans_(part.boolean("clean_text", true)),
        separates_chinese_(part.boolean("handle_chinese_chars", true)),
        lowers_(part.boolean("lowercase", true)),
        strips_accents_(part.boolean("strip_accents", lowers_)) {}

  void apply(NormalText& normal) const override {
    if (cleans_) map_characters(normal, without_control);
    if (separates_chinese_) separate_chinese(normal);
    if (strips_accents_) {
      apply_form(normal, NormalForm::nfd);
      map_characters(normal, [](std::uint32_t c) {
        return c >= 0x80 && contains(nonspacing_mark_ranges(), c) ? kDropped : c;
      });
    }
    if (lowers_) apply_lower_case(normal);
  }

 private:
  static void separate_chinese(NormalText& normal) {
    std::string out;
    out.reserve(normal.text.size());
    std::size_t start = 0;
    std::size_t length = 0;
    for (std::size_t i = 0; i < normal.text.size(); i += length) {
      const bool stands_alone = is_chinese(utf8_at(normal.text, i, length));
      if (stands_alone) out += ' ';
      out.append(normal.text, i, length);
      if (stands_alone) out += ' ';
      if (i < normal.start) start = out.size();
    }
    normal.text = std::move(out);
    normal.start = start;
  }

  bool cleans_;
  bool separates_chinese_;
  bool lowers_;
  bool strips_accents_;
};

class Strip : public NormalizerStep {
 public:
  explicit Strip(const Component& part)
      : left_(part.boolean("strip_left", false)), right_(part.boolean("strip_right", false)) {}

  void apply(NormalText& normal) const override {
    std::string& text = normal.text;
    std::size_t end = text.size();
    while (right_ && end > 0) {
      const std::size_t previous = utf8_previous(text, end);
      if (!is_space_at(text, previous)) break;
      end = previous;
    }
    std::size_t begin = 0;
    while (left_ && begin < end && is_space_at(text, begin))
      begin += utf8_length(static_cast<unsigned char>(text[begin]));
    text = text.substr(begin, end - begin);
    normal.start = std::min(normal.start - std::min(normal.start, begin), text.size());
  }

 private:
  static bool is_space_at(std::string_view text, std::size_t position) {
    std::size_t length = 0;
    return is_white_space(utf8_at(text, position, length));
  }

  bool left_;
  bool right_;
};

class StripAccents : public NormalizerStep {
 public:
  void apply(NormalText& normal) const override {
    map_characters(normal, [](std::uint32_t c) {
      return c >= 0x80 && contains(combining_mark_ranges(), c) ? kDropped : c;
    });
  }
};

class Nmt : public NormalizerStep {
 public:
  void apply(NormalText& normal) const override {
    map_characters(normal, [](std::uint32_t c) -> std::uint32_t {
      if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
          c == 0x8F || c == 0x9F)
        return kDropped;
      const bool is_space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                            (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                            c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      return is_space ? ' ' : c;
    });
  }
};

}  // namespace

std::unique_ptr<NormalizerStep> make_bert_normalizer(const Component& part) {
  return std::make_unique<BertNormalizer>(part);
}
std::unique_ptr<NormalizerStep> make_strip(const Component& part) {
  return std::make_unique<Strip>(part);
}
std::unique_ptr<NormalizerStep> make_strip_accents() { return std::make_unique<StripAccents>(); }
std::unique_ptr<NormalizerStep> make_nmt() { return std::make_unique<Nmt>(); }

}  // namespace lora::text
