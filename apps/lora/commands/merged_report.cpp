#include "commands/merged_report.h"

#include <algorithm>
#include <map>

#include "cli/units.h"

namespace lora::cli {
namespace {

constexpr std::size_t kFew = 6;

// Tensors that differ come first, then those that lost most to rounding.
std::vector<const MergedTensor*> ranked(const MergedReport& report) {
  std::vector<const MergedTensor*> tensors;
  for (const MergedTensor& tensor : report.tensors)
    if (tensor.fitted || tensor.proof == MergeProof::differs) tensors.push_back(&tensor);
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto* a, const auto* b) {
    const bool a_differs = a->proof == MergeProof::differs;
    const bool b_differs = b->proof == MergeProof::differs;
    return a_differs != b_differs ? a_differs : a->survived < b->survived;
  });
  return tensors;
}

std::string_view kind_name(MergeExplanation::Kind kind) {
  using Kind = MergeExplanation::Kind;
  switch (kind) {
    case Kind::not_applied:
      return "not_applied";
    case Kind::applied_twice:
      return "applied_twice";
    case Kind::subtracted:
      return "subtracted";
    case Kind::other_scale:
      return "other_scale";
    case Kind::rslora_ignored:
      return "rslora_ignored";
    case Kind::transposed:
      return "transposed";
    case Kind::other_adapter:
      return "other_adapter";
    case Kind::other_base:
      return "other_base";
    case Kind::none:
      break;
  }
  return "none";
}

std::string_view proof_name(MergeProof proof) {
  switch (proof) {
    case MergeProof::unchanged:
      return "unchanged";
    case MergeProof::saved:
      return "saved";
    case MergeProof::merge:
      return "merge";
    case MergeProof::safe_merge:
      return "safe_merge";
    case MergeProof::held_low:
      return "held_low";
    case MergeProof::one_ulp:
      return "one_ulp";
    case MergeProof::missing:
      return "missing";
    case MergeProof::not_replayed:
      return "not_replayed";
    case MergeProof::differs:
      break;
  }
  return "differs";
}

Json tensor_json(const MergedTensor& tensor) {
  const bool differs = tensor.proof == MergeProof::differs;
  return JsonObject{{"tensor", printable(tensor.base_name)},
                    {"module", printable(tensor.module_path)},
                    {"proof", proof_name(tensor.proof)},
                    {"compute", to_string(tensor.compute)},
                    {"elements", tensor.elements},
                    {"outside", tensor.outside},
                    {"first_outside", differs ? Json(tensor.first_outside) : Json()},
                    {"found", differs ? Json(tensor.found) : Json()},
                    {"expected", differs ? Json(tensor.expected) : Json()},
                    {"worst_ulps", tensor.worst_ulps},
                    {"fitted", tensor.fitted ? Json(*tensor.fitted) : Json()},
                    {"cosine", tensor.cosine},
                    {"survived", tensor.survived},
                    {"changed", tensor.changed},
                    {"note", printable(tensor.note)}};
}

Json names_json(const std::vector<std::string>& names) {
  JsonArray array;
  for (const std::string& name : names) array.emplace_back(printable(name));
  return array;
}

}  // namespace

void print_merged_report(const MergedReport& report, bool all_tensors, Console& console) {
  console.line("  merged " + printable(report.path.string()));
  const auto tensors = ranked(report);
  if (tensors.empty()) return;
  Table table({"  tensor", "proof", "fitted", "cosine", "changed", "energy kept"},
              {false, false, true, true, true, true});
  const std::size_t shown = all_tensors ? tensors.size() : std::min(kFew, tensors.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const MergedTensor& tensor = *tensors[i];
    std::string proof(to_string(tensor.proof));
    if (tensor.proof == MergeProof::one_ulp || tensor.proof == MergeProof::differs)
      proof += " (" + number_text(tensor.worst_ulps, 3) + " ulp)";
    table.row({"  " + printable(tensor.base_name), proof,
               tensor.fitted ? number_text(*tensor.fitted, 5) : "",
               tensor.fitted ? number_text(tensor.cosine, 4) : "", percent_text(tensor.changed, 4),
               tensor.fitted ? percent_text(tensor.survived, 4) : ""});
  }
  for (const std::string& line : table.lines()) console.line(line);
  if (shown < tensors.size())
    console.line("  and " + std::to_string(tensors.size() - shown) + " more tensors (--modules)");
}

Json merged_report_json(const MergedReport& report) {
  JsonArray tensors, explanations;
  for (const MergedTensor& tensor : report.tensors) tensors.push_back(tensor_json(tensor));
  for (const MergeExplanation& explanation : report.explanations)
    explanations.push_back(JsonObject{{"kind", kind_name(explanation.kind)},
                                      {"factor", explanation.factor},
                                      {"adapter", explanation.adapter.string()},
                                      {"tensors", explanation.explained},
                                      {"text", printable(explanation.text)}});
  return JsonObject{{"path", report.path.string()},
                    {"reproduced", report.is_reproduced()},
                    {"problem", report.problem.empty() ? Json() : Json(printable(report.problem))},
                    {"survived", report.survived},
                    {"cosine", report.cosine},
                    {"changed", report.changed},
                    {"total_bytes", report.total_bytes},
                    {"extra", names_json(report.extra)},
                    {"left_out", names_json(report.left_out)},
                    {"adapter_keys", names_json(report.adapter_keys)},
                    {"shared", names_json(report.shared)},
                    {"explanations", std::move(explanations)},
                    {"tensors", std::move(tensors)}};
}

}  // namespace lora::cli
