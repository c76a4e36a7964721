#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <system_error>

#include "lora/base/sha256.h"
#include "lora/ops/finding_filter.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

// Outputs are computed by the engine, whose last digits are another machine's.
constexpr std::string_view kOutputRules = "LV6";

fs::path whole_path(const fs::path& path) {
  std::error_code failed;
  const fs::path whole = fs::absolute(path.empty() ? "." : path, failed).lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();
}

fs::path without_links(const fs::path& path) {
  std::error_code failed;
  fs::path resolved = fs::weakly_canonical(path, failed);
  return failed ? path : resolved;
}

bool leads_out(const fs::path& relative) { return relative.empty() || *relative.begin() == ".."; }

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// The same text in every checkout and from every working directory.
std::string without_places(std::string message, const fs::path& adapter, const fs::path& folder,
                           const std::string& name) {
  const std::string given = adapter.string();
  // A bare name may be an ordinary word of the message.
  if (given.find('/') != std::string::npos) replace_all(message, given, name);
  const std::string start = whole_path(folder).string() + "/";
  if (start != "//") replace_all(message, start, "");
  return message;
}

bool is_figure_part(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_';
}

std::size_t figure_end(std::string_view text, std::size_t start) {
  std::size_t end = start;
  while (end < text.size()) {
    const bool is_exponent_sign =
        (text[end] == '-' || text[end] == '+') && end > start && text[end - 1] == 'e';
    if (!is_figure_part(text[end]) && !is_exponent_sign) break;
    ++end;
  }
  while (end > start && text[end - 1] == '.') --end;
  return std::max(end, start + 1);
}

// Numbers that are no whole ones with one digit: "0.0123" is "1e-02". Counts and positions stay.
std::string with_coarse_figures(std::string_view message) {
  std::string text;
  for (std::size_t i = 0; i < message.size();) {
    const std::size_t end = is_figure_part(message[i]) ? figure_end(message, i) : i + 1;
    const std::string_view word = message.substr(i, end - i);
    double value = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool is_real = parsed.ec == std::errc() && parsed.ptr == word.data() + word.size() &&
                         word.find_first_of(".e") != std::string_view::npos;
    if (is_real) {
      std::array<char, 32> digits{};
      std::snprintf(digits.data(), digits.size(), "%.0e", value);
      text += digits.data();
    } else {
      text += word;
    }
    i = end;
  }
  return text;
}

std::string digest_of(std::vector<std::string> names) {
  if (names.empty()) return {};
  constexpr std::size_t kDigits = 16;
  std::sort(names.begin(), names.end());
  Sha256 hash;
  for (const std::string& name : names) {
    hash.update_u64(name.size());
    hash.update(std::string_view(name));
  }
  return hash.finish().hex().substr(0, kDigits);
}

}  // namespace

std::string adapter_in(const fs::path& folder, const fs::path& adapter) {
  const fs::path from = whole_path(folder), to = whole_path(adapter);
  const fs::path named = to.lexically_relative(from);
  if (!leads_out(named)) return named.generic_string();
  return without_links(to).lexically_relative(without_links(from)).generic_string();
}

FindingIdentity identity_of(const Finding& finding, const fs::path& adapter,
                            const fs::path& folder) {
  FindingIdentity identity;
  identity.rule = finding.rule;
  identity.adapter = adapter_in(folder, adapter);
  if (!finding.file.empty() && whole_path(finding.file) != whole_path(adapter))
    identity.file = adapter_in(adapter, finding.file);
  identity.module = finding.module;
  identity.tensor = finding.tensor;
  identity.message = without_places(finding.message, adapter, folder, identity.adapter);
  if (finding.rule.starts_with(kOutputRules))
    identity.message = with_coarse_figures(identity.message);
  identity.unlisted = digest_of(finding.unlisted);
  return identity;
}

}  // namespace lora
