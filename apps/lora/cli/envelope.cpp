#include "cli/envelope.h"

#include "cli/console.h"
#include "cli/exit_codes.h"

namespace lora::cli {
namespace {

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(printable(text)); }

Json error_json(const Error& error) {
  return JsonObject{
      {"kind", to_string(error.kind())},    {"message", printable(error.message())},
      {"file", text_or_null(error.file())}, {"tensor", text_or_null(error.tensor())},
      {"hint", text_or_null(error.hint())}, {"exit_code", exit_code_of(error.kind())}};
}

}  // namespace

Json to_json(const Finding& finding) {
  JsonObject object{{"rule", finding.rule},
                    {"severity", to_string(finding.severity)},
                    {"message", printable(finding.message)},
                    {"file", text_or_null(finding.file)},
                    {"tensor", text_or_null(finding.tensor)},
                    {"module", text_or_null(finding.module)},
                    {"hint", text_or_null(finding.hint)}};
  if (finding.more != 0) object["more"] = finding.more;
  return object;
}

std::string envelope(const std::string& verb, const Outcome& outcome, const Error* error) {
  JsonArray findings;
  for (const Finding& finding : outcome.findings) findings.push_back(to_json(finding));
  const JsonObject document{
      {"schema", "lora." + (verb.empty() ? std::string("usage") : verb) + "/1"},
      {"tool", JsonObject{{"name", "lora"}, {"version", LORA_VERSION}}},
      {"result", outcome.result},
      {"findings", std::move(findings)},
      {"error", error ? error_json(*error) : Json()}};
  return dump_json(document) + "\n";
}

}  // namespace lora::cli
