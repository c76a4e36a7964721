// The verdict on one adapter: what was proven, and how.
#pragma once

#include <cstddef>

#include "lora/ops/verify.h"
#include "ops/base_evidence.h"
#include "ops/base_identity.h"

namespace lora {

/// What the base check compared, as the line of the check "base". Null: no base was given.
std::string describe_base_check(const BaseIdentity* identity, const BaseEvidence& evidence,
                                const std::optional<Manifest>& manifest, std::size_t base_tensors);

/// Sets report.verdict and report.verdict_reason from the findings that count and the base. An
/// error that a filter left out still stands in the way of a proof.
void decide_verdict(const BaseIdentity* identity, const BaseEvidence& evidence,
                    VerifyReport& report);

}  // namespace lora
