// What verify, diff and inspect found: facts with a rule, a severity and advice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lora {

enum class Severity { note, warning, error };

std::string_view to_string(Severity severity);

struct Finding {
  std::string rule;  ///< "LV305"
  Severity severity = Severity::note;
  std::string message;  ///< one line of facts: what was found, what was expected
  std::string file;     ///< each of these is empty when the finding is not about one
  std::string tensor;
  std::string module;
  std::string hint;                   ///< the command or step that fixes it
  std::vector<std::string> unlisted;  ///< names that the message counts and does not list
  /// Not 0: this entry stands for so many more findings of its rule and severity, which are counted
  /// and not kept (kMostFindings); `unlisted` is a digest of them.
  std::uint64_t more = 0;
};

using Findings = std::vector<Finding>;

/// Findings of one rule and severity that one run keeps in full. A damaged file can give rise to
/// one for each of its records.
inline constexpr std::uint64_t kMostFindings = 100;

/// How many findings of this severity there are, those that were only counted included.
std::uint64_t count_of(const Findings& findings, Severity severity);
/// The same of every severity.
std::uint64_t count_of(const Findings& findings);

}  // namespace lora
