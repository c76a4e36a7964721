#include <cctype>
#include <span>

#include "cli/console.h"
#include "commands/report_formats.h"
#include "lora/base/sha256.h"
#include "lora/format/json.h"

namespace lora::cli {
namespace {

constexpr const char* kSchema =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json";

// Relative paths stay relative to the folder of the run, which is what code scanning expects.
std::string uri_of(const std::filesystem::path& path) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out = path.is_absolute() ? "file://" : "";
  for (const char c : path.lexically_normal().generic_string()) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("-._~/").find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

Json text(std::string_view value) { return JsonObject{{"text", printable(value)}}; }

Json rule_json(const RuleInfo& rule) {
  return JsonObject{{"id", rule.id},
                    {"name", rule.name},
                    {"shortDescription", text("looks at " + std::string(rule.looks_at))},
                    {"fullDescription", text(rule.says)},
                    {"help", text("Fix: " + std::string(rule.fix) + ".")},
                    {"defaultConfiguration", JsonObject{{"level", to_string(rule.severity)}}}};
}

// Equal for the same finding on another day and in another checkout, as in a baseline that lies in
// the folder of the run.
std::string fingerprint(const VerifiedAdapter& adapter, const Finding& finding) {
  const FindingIdentity identity = identity_of(finding, adapter.report.path, {});
  Sha256 hash;
  for (const std::string& part : {identity.rule, identity.adapter, identity.file, identity.module,
                                  identity.tensor, identity.message, identity.unlisted}) {
    hash.update_u64(part.size());
    hash.update(std::string_view(part));
  }
  return hash.finish().hex();
}

Json location_json(const VerifiedAdapter& adapter, const Finding& finding) {
  JsonObject location{
      {"physicalLocation",
       JsonObject{{"artifactLocation", JsonObject{{"uri", uri_of(file_of(adapter, finding))}}},
                  {"region", JsonObject{{"startLine", 1}}}}}};
  JsonArray logical;
  if (!finding.module.empty())
    logical.push_back(
        JsonObject{{"fullyQualifiedName", printable(finding.module)}, {"kind", "module"}});
  if (!finding.tensor.empty())
    logical.push_back(
        JsonObject{{"fullyQualifiedName", printable(finding.tensor)}, {"kind", "parameter"}});
  if (!logical.empty()) location["logicalLocations"] = std::move(logical);
  return location;
}

class Results {
 public:
  Results() {
    for (const RuleInfo& rule : verify_rules()) {
      ids_.emplace_back(rule.id);
      rules_.push_back(rule_json(rule));
    }
  }

  void add(const VerifiedAdapter& adapter, const Finding& finding, bool is_accepted) {
    std::string message = finding.message;
    if (!finding.hint.empty()) message += " (hint: " + finding.hint + ")";
    JsonObject result{{"ruleId", finding.rule}};
    for (std::size_t i = 0; i < ids_.size(); ++i)
      if (ids_[i] == finding.rule) result["ruleIndex"] = static_cast<std::int64_t>(i);
    result["level"] = to_string(finding.severity);
    result["message"] = text(message);
    result["locations"] = JsonArray{location_json(adapter, finding)};
    result["partialFingerprints"] = JsonObject{{"loraFinding/v2", fingerprint(adapter, finding)}};
    if (is_accepted)
      result["suppressions"] =
          JsonArray{JsonObject{{"kind", "external"}, {"justification", "in the baseline"}}};
    results_.push_back(std::move(result));
  }

  std::string document(int exit_code, const Error* failure) {
    JsonObject invocation{{"executionSuccessful", failure == nullptr}, {"exitCode", exit_code}};
    if (failure != nullptr)
      invocation["toolExecutionNotifications"] =
          JsonArray{JsonObject{{"level", "error"}, {"message", text(failure->message())}}};
    const JsonObject driver{
        {"name", "lora"}, {"semanticVersion", LORA_VERSION}, {"rules", std::move(rules_)}};
    JsonObject run{{"tool", JsonObject{{"driver", driver}}},
                   {"invocations", JsonArray{std::move(invocation)}},
                   {"columnKind", "utf16CodeUnits"},
                   {"results", std::move(results_)}};
    return dump_json(JsonObject{
               {"$schema", kSchema}, {"version", "2.1.0"}, {"runs", JsonArray{std::move(run)}}}) +
           "\n";
  }

 private:
  std::vector<std::string> ids_;
  JsonArray rules_, results_;
};

}  // namespace

std::string sarif_report(const std::vector<VerifiedAdapter>& adapters, int exit_code) {
  Results results;
  for (const VerifiedAdapter& adapter : adapters) {
    for (const Finding& finding : adapter.report.findings) results.add(adapter, finding, false);
    for (const Finding& finding : adapter.report.accepted) results.add(adapter, finding, true);
  }
  return results.document(exit_code, nullptr);
}

std::string sarif_failure(const Error& error, int exit_code) {
  return Results().document(exit_code, &error);
}

}  // namespace lora::cli
