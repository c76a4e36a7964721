#include "ops/rules/rule.h"

namespace lora::rules {

// These are raised by the comparison of outputs itself (verify_outputs.cpp), not by the frame.
const std::vector<Rule>& output_rules() {
  static const std::vector<Rule> rules{
      {{"LV601", "outputs-changed", Severity::error,
        "recorded outputs of base + adapter against those computed now",
        "The same input no longer gives the same answer.",
        "see the other findings for what changed; restore the adapter or the base"},
       nullptr},
      {{"LV602", "base-outputs-changed", Severity::error,
        "recorded outputs of the bare base against those computed now",
        "The base computes something else than when the adapter was recorded.",
        "give the recorded base"},
       nullptr},
      {{"LV603", "outputs-not-checked", Severity::warning, "whether outputs could be compared",
        "The check of outputs was asked for and could not be made.",
        "record outputs: lora save ADAPTER --base BASE -o DIR"},
       nullptr},
      {{"LV604", "outputs-inert", Severity::warning, "outputs with and without the adapter",
        "The adapter does not change the outputs on the recorded input.",
        "check the scaling and the norms; train longer"},
       nullptr},
  };
  return rules;
}

}  // namespace lora::rules
