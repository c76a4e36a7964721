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
        "The adapter does not change the outputs on the recorded input (an error when it did so "
        "when it was recorded: it is no longer applied).",
        "check the scaling and the norms; train longer"},
       nullptr},
      {{"LV605", "effect-like-noise", Severity::warning,
        "the effect on outputs beside that of random adapters of equal norms (--null N)",
        "Any update of this size moves the outputs as much: the training left no direction that "
        "matters.",
        "check data and learning rate; more samples (--null) make the comparison sharper"},
       nullptr},
      {{"LV606", "outputs-rounded", Severity::warning,
        "whether a difference of outputs is one of precision",
        "The answers are the recorded ones, computed from coarser numbers: the base or the adapter "
        "is stored in fewer bits than when it was recorded.",
        "give the base in the dtype it was recorded in, or record the outputs again"},
       nullptr},
      {{"LV607", "merged-outputs-differ", Severity::error,
        "recorded outputs of base + adapter against those of the merged checkpoint (--merged)",
        "The merged checkpoint does not compute what base and adapter compute together.",
        "merge again; verify --merged without --outputs says which tensors differ"},
       nullptr},
  };
  return rules;
}

}  // namespace lora::rules
