#include <string_view>

#include "cli/console.h"
#include "commands/report_formats.h"

namespace lora::cli {
namespace {

// XML 1.0 has no place for control characters (printable() spells them out), surrogates and the two
// last code points of the first plane.
std::string escaped(std::string_view raw) {
  const std::string text = printable(raw);
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = std::string_view(text).substr(i);
    if (rest.starts_with("\xEF\xBF\xBE") || rest.starts_with("\xEF\xBF\xBF")) {
      out += "\xEF\xBF\xBD";
      i += 2;
    } else if (text[i] == '&') {
      out += "&amp;";
    } else if (text[i] == '<') {
      out += "&lt;";
    } else if (text[i] == '>') {
      out += "&gt;";
    } else if (text[i] == '"') {
      out += "&quot;";
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string attribute(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + escaped(value) + "\"";
}

std::string line_of(const Finding& finding) {
  std::string line = std::string(to_string(finding.severity)) + " " + title_of(finding) + ": ";
  if (!finding.tensor.empty() && finding.message.find(finding.tensor) == std::string::npos)
    line += finding.tensor + ": ";
  return escaped(line + finding.message) + "\n";
}

struct Counts {
  std::size_t tests = 0, failures = 0, errors = 0, skipped = 0;
  void add(const Counts& other) {
    tests += other.tests;
    failures += other.failures;
    errors += other.errors;
    skipped += other.skipped;
  }
  std::string attributes(bool with_skipped) const {
    return attribute("tests", std::to_string(tests)) +
           attribute("failures", std::to_string(failures)) +
           attribute("errors", std::to_string(errors)) +
           (with_skipped ? attribute("skipped", std::to_string(skipped)) : "");
  }
};

/// The children of one <testsuite>.
class Suite {
 public:
  explicit Suite(const VerifyReport& report) : report_(report) {}

  std::string run(Counts& total) {
    for (const CheckResult& check : report_.checks) add_case(check);
    std::string output;
    for (const Finding& finding : report_.findings)
      if (finding.severity != Severity::error) output += line_of(finding);
    total.add(counts_);
    return "  <testsuite" + attribute("name", report_.path.string()) + counts_.attributes(true) +
           ">\n    <properties>\n      <property name=\"verdict\"" +
           attribute("value", std::string(to_string(report_.verdict))) +
           "/>\n      <property name=\"verdict_reason\"" +
           attribute("value", report_.verdict_reason) + "/>\n    </properties>\n" + cases_ +
           (output.empty() ? "" : "    <system-out>" + output + "</system-out>\n") +
           "  </testsuite>\n";
  }

 private:
  void add_case(const CheckResult& check) {
    ++counts_.tests;
    cases_ +=
        "    <testcase" + attribute("classname", "lora.verify") + attribute("name", check.name);
    std::string body;
    switch (check.status) {
      case CheckStatus::passed:
      case CheckStatus::waived:
        cases_ += "/>\n";
        return;
      case CheckStatus::not_asked:
        ++counts_.skipped;
        cases_ +=
            ">\n      <skipped" + attribute("message", check.detail) + "/>\n    </testcase>\n";
        return;
      case CheckStatus::not_made:
        ++counts_.errors;
        cases_ += ">\n      <error type=\"not made\"" + attribute("message", check.detail) +
                  "/>\n    </testcase>\n";
        return;
      case CheckStatus::failed:
        break;
    }
    const bool is_unreadable = !report_.is_readable && check.name == "integrity";
    ++(is_unreadable ? counts_.errors : counts_.failures);
    const char* element = is_unreadable ? "error" : "failure";
    std::string first, text;
    for (const Finding& finding : report_.findings) {
      if (finding.severity != Severity::error || check_of_rule(finding.rule) != check.name)
        continue;
      if (first.empty()) first = title_of(finding);
      text += line_of(finding);
    }
    cases_ += std::string(">\n      <") + element + attribute("type", first) +
              attribute("message", check.detail) + ">" + text + "</" + element +
              ">\n    </testcase>\n";
  }

  const VerifyReport& report_;
  std::string cases_;
  Counts counts_;
};

std::string document(const std::string& attributes, const std::string& content) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"lora verify\"" +
         attributes + ">\n" + content + "</testsuites>\n";
}

}  // namespace

std::string junit_report(const std::vector<VerifiedAdapter>& adapters) {
  Counts total;
  std::string suites;
  for (const VerifiedAdapter& adapter : adapters) suites += Suite(adapter.report).run(total);
  return document(total.attributes(false), suites);
}

std::string junit_failure(const Error& error) {
  const Counts one{1, 0, 1, 0};
  return document(one.attributes(false),
                  "  <testsuite name=\"lora verify\"" + one.attributes(true) +
                      ">\n    <testcase classname=\"lora.verify\" name=\"run\">\n      <error" +
                      attribute("type", to_string(error.kind())) +
                      attribute("message", error.message()) +
                      "/>\n    </testcase>\n  </testsuite>\n");
}

}  // namespace lora::cli
