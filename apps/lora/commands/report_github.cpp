#include "cli/console.h"
#include "commands/report_formats.h"

namespace lora::cli {
namespace {

// The data of a command ends at the line, its properties also at commas and colons.
std::string escaped(std::string_view text, bool is_property) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '%') {
      out += "%25";
    } else if (c == '\r') {
      out += "%0D";
    } else if (c == '\n') {
      out += "%0A";
    } else if (is_property && c == ':') {
      out += "%3A";
    } else if (is_property && c == ',') {
      out += "%2C";
    } else {
      out += c;
    }
  }
  return out;
}

std::string_view command_of(Severity severity) {
  return severity == Severity::note ? "notice" : to_string(severity);
}

}  // namespace

std::string github_report(const std::vector<VerifiedAdapter>& adapters) {
  std::string out;
  for (const VerifiedAdapter& adapter : adapters)
    for (const Finding& finding : adapter.report.findings) {
      std::string message = escaped(finding.message, false);
      if (!finding.hint.empty()) message += "%0Ahint: " + escaped(finding.hint, false);
      out += "::" + std::string(command_of(finding.severity)) +
             " file=" + escaped(file_of(adapter, finding).string(), true) +
             ",title=" + escaped(title_of(finding), true) + "::" + message + "\n";
    }
  return out;
}

std::string github_failure(const Error& error) {
  return "::error title=lora verify::" + escaped(error.message(), false) + "\n";
}

}  // namespace lora::cli
