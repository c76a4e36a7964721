#include "text/normal_forms.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <memory>

#include "lora/base/error.h"
#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace lora::text {
namespace {

void append_form(std::string& out, std::string_view text, utf8proc_option_t options) {
  if (text.empty()) return;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  if (size < 0)
    throw Error(ErrorKind::resources,
                std::string("cannot normalize text: ") + utf8proc_errmsg(size));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  out.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size));
}

utf8proc_option_t options_of(NormalForm form) {
  const bool composes = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool is_compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                        (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (is_compatible ? UTF8PROC_COMPAT : 0));
}

// Lower cases of Unicode 16 and 17, which utf8proc lacks before its release 2.11.
struct LowerCases {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t lower;  // of the first
};
constexpr LowerCases kNewLowerCases[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x0264}, {0xA7CC, 0xA7CC, 0xA7CD},
    {0xA7CE, 0xA7CE, 0xA7CF},    {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
    {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x019B}, {0x10D50, 0x10D65, 0x10D70},
    {0x16EA0, 0x16EB8, 0x16EBB},
};

std::uint32_t lower_case_of(std::uint32_t code_point) {
  if (code_point < 0x80)
    return code_point >= 'A' && code_point <= 'Z' ? code_point + 32 : code_point;
  if (code_point >= kNewLowerCases[0].first)
    for (const LowerCases& cases : kNewLowerCases)
      if (code_point >= cases.first && code_point <= cases.last)
        return cases.lower + (code_point - cases.first);
  return static_cast<std::uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)));
}

}  // namespace

std::string normal_form(std::string text, NormalForm form) {
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return text;
  const utf8proc_option_t options = options_of(form);
  const std::uint32_t first_inert = inert_ranges().front().first;
  std::string out;
  std::size_t done = 0;
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const std::uint32_t code_point = utf8_at(text, i, length);
    if (code_point < first_inert || !contains(inert_ranges(), code_point)) continue;
    append_form(out, std::string_view(text).substr(done, i - done), options);
    out.append(text, i, length);
    done = i + length;
  }
  append_form(out, std::string_view(text).substr(done), options);
  return out;
}

void apply_form(NormalText& normal, NormalForm form) {
  const std::string beginning = normal_form(normal.text.substr(0, normal.start), form);
  normal.text = normal_form(std::move(normal.text), form);
  if (normal.start == 0) return;
  // Composition may change the first character, which is then all that is left of the start.
  const auto end =
      std::mismatch(beginning.begin(), beginning.end(), normal.text.begin(), normal.text.end());
  auto common = static_cast<std::size_t>(end.first - beginning.begin());
  while (common < normal.text.size() && !is_utf8_start(normal.text[common])) --common;
  normal.start = std::max(common, utf8_length(static_cast<unsigned char>(normal.text.front())));
}

void apply_lower_case(NormalText& normal) {
  normal.start = lower_case(std::string_view(normal.text).substr(0, normal.start)).size();
  normal.text = lower_case(normal.text);
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    const std::uint32_t code_point = utf8_at(text, i, length);
    // The one character whose lower case is two: I with a dot above.
    if (code_point == 0x130) {
      out += "i\xCC\x87";
    } else {
      append_utf8(out, lower_case_of(code_point));
    }
  }
  return out;
}

}  // namespace lora::text
